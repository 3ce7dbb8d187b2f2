//! Where the parameters of the registry's methods are looked for: around what was published, an order of magnitude or two to each side.

use super::Scale::{self, Linear, Log, Whole};

/// `(sampler, parameter, low, high, scale)`, the most influential parameter of a method first.
pub(super) const RANGES: &[(&str, &str, f64, f64, Scale)] = &[
    ("projection", "eta", 0.0, 1.0, Linear),
    ("projection", "lambda", 0.0, 1.0, Linear),
    ("dps", "zeta", 0.05, 30.0, Log),
    ("mcg", "weight", 0.05, 30.0, Log),
    ("diffpir", "lambda", 0.05, 1000.0, Log),
    ("diffpir", "zeta", 0.0, 1.0, Linear),
    ("ddnm", "eta", 0.0, 1.0, Linear),
    ("ddrm", "eta", 0.0, 1.0, Linear),
    ("ddrm", "eta_b", 0.0, 1.0, Linear),
    ("ccdf", "t0", 0.02, 1.0, Log),
    ("pigdm", "weight", 0.05, 20.0, Log),
    ("pigdm", "eta", 0.0, 1.0, Linear),
    ("red-diff", "lambda", 0.01, 10.0, Log),
    ("red-diff", "lr", 0.002, 0.5, Log),
    ("score-sde", "snr", 0.02, 1.0, Log),
    ("gaussian-guidance", "eta", 0.0, 1.0, Linear),
    ("gaussian-guidance", "iterations", 1.0, 20.0, Whole),
    ("mmps", "iterations", 1.0, 20.0, Whole),
    ("daps", "lr", 1e-6, 1e-2, Log),
    ("daps", "tau", 1e-3, 0.3, Log),
    ("pnp-dm", "rho_min", 0.01, 1.0, Log),
    ("pnp-dm", "decay", 0.7, 0.98, Linear),
    ("pnp-flow", "gamma", 0.05, 1.95, Log),
    ("pnp-flow", "alpha", 0.01, 2.0, Log),
    ("flowdps", "gamma", 0.05, 1.95, Log),
    ("flowdps", "shift", 0.5, 8.0, Log),
    ("score-mri", "snr", 0.02, 1.0, Log),
    ("score-mri", "lambda", 0.0, 1.0, Linear),
    ("csgm", "mse", 0.05, 50.0, Log),
    ("csgm", "step_lr", 1e-6, 1e-3, Log),
    ("l1-wavelet", "lambda", 1e-5, 1.0, Log),
    ("tv", "lambda", 1e-5, 1.0, Log),
];
