//! What a training is recognised by when it goes on.

use serde_json::{Map, Value, json};

use super::super::{Objective, Repeat, RunSettings, Training};

impl Training<'_> {
    /// By name, everything that the result depends on, for a checkpoint.
    pub fn key(&self) -> Map<String, Value> {
        let RunSettings { steps, batch, micro_batch, rate, betas, epsilon, weight_decay, clip, .. } = &self.settings;
        let RunSettings { average_decay, seed, .. } = &self.settings;
        let key = json!({
            "network": self.network.config(),
            "data": self.data.hash(),
            "repeat": self.repeated(),
            "objective": format!("{:?}", Described(self.objective)),
            "augmentation": format!("{:?}", self.augmentation),
            "model": self.model.to_json(),
            "steps": steps,
            "batch": batch,
            "micro-batch": micro_batch,
            "learning rate": rate.peak,
            "warm-up": rate.warm_up,
            "last learning rate": rate.end,
            "betas": [betas.0, betas.1],
            "epsilon": epsilon,
            "weight decay": weight_decay,
            "clip": clip,
            "average decay": average_decay,
            "seed": seed,
            "precision": if self.device.gpu().is_some() { json!(format!("{:?}", self.precision)) } else { json!("F32") },
        });
        match key {
            Value::Object(map) => map,
            _ => unreachable!("the macro was given an object"),
        }
    }

    /// What comes more than once; nothing where nothing does, as checkpoints say that are older than this.
    fn repeated(&self) -> Option<Vec<String>> {
        let said =
            |(Repeat { pattern, times }, slices): &(Repeat, usize)| format!("{pattern}={times}: {slices} slices");
        let repeated: Vec<String> = self.data.repeated().iter().map(said).collect();
        (!repeated.is_empty()).then_some(repeated)
    }
}

/// An objective without the thousand levels of its schedule, which follow from the rest.
struct Described<'a>(&'a Objective);

impl std::fmt::Debug for Described<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Objective { schedule, law, weighting, pairing, learned_variance } = self.0;
        let (low, high) = schedule.sigma_range();
        write!(
            f,
            "{:?}, sigma {low:e} to {high:e}, {law:?}, {weighting:?}, {pairing:?}, learned variance {learned_variance}",
            schedule.prediction
        )
    }
}
