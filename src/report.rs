//! Figures, tables and sidecars of a run.
