//! Training a prior: the data, what is drawn and minimised, and the loop around the gradient.
//!
//! A [`Dataset`] gives images, an [`Objective`] says which noise levels are drawn, what the network is given and what its output is
//! compared with, a [`Trainer`](crate::network::Trainer) turns the gradient of that into a step, and a [`Training`] does this again and
//! again. What a step sees follows from the seed and its number alone, so a training that was interrupted goes on as if it had not been.

mod augment;
mod batches;
mod checkpoint;
mod data;
mod objective;
mod rate;
mod run;
mod samples;
mod settings;
mod shown;
mod validation;
mod watcher;

pub use augment::Augmentation;
pub use batches::{Batch, Batches};
pub use checkpoint::{Checkpoint, FILE as CHECKPOINT_FILE};
pub use data::{DataSettings, Dataset, Group, Repeat};
pub use objective::{Draw, Law, Level, Loss, Objective, Pairing, Weighting, assignment};
pub use rate::Rate;
pub use run::Training;
pub use settings::{RunSettings, average_decay};
pub use validation::Validation;
pub use watcher::{Event, Watcher};
