//! The command line, proved by running the binary on files that the tests make.

mod cli {
    mod commands;
    mod files;
    mod inputs;
    mod outputs;
    mod results;
    mod resume;
    mod scene;
    mod usage;
}
