//! The command line, proved by running the binary on files that the tests make.

#![allow(clippy::unwrap_used)]

mod cli {
    mod cascade;
    mod commands;
    mod conditions;
    mod files;
    mod generation;
    mod inputs;
    mod outputs;
    mod proof;
    mod results;
    mod resume;
    mod scene;
    mod train;
    mod usage;
}
