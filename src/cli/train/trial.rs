//! `--dry-run`: what a training would take.

use std::time::Instant;

use operators::Array;
use recon::network::{Network, Trainer, Update};
use recon::train::Training;

use super::Plan;

/// Steps that are timed; the first one, which plans and allocates, is not.
const TIMED: usize = 2;

/// Says memory and time of a step, measured on one part of a batch with images of zeros.
pub(super) fn run(plan: &Plan<'_>, training: &Training<'_>) -> anyhow::Result<()> {
    let settings = &training.settings;
    let [_, rows, columns] = plan.data.shape();
    let network = Network::new(plan.network.graph().clone())?.with_precision(plan.precision());
    // Numbers, gradient, two moments and the average in f32; images kept for the gradient.
    let numbers = 5 * 4 * plan.network.parameters();
    let images = network.footprint((rows, columns), true).per_image * settings.micro_batch;
    // On the processor images are f32, whatever a GPU would take.
    let images = if plan.device.gpu().is_some() { images } else { images * 4 / element(plan) };
    super::super::print(&format!(
        "memory: about {:.1} GB for the network in training; data: {}\n",
        (numbers + images) as f64 / 1e9,
        super::whereabouts(&plan.data)
    ))?;
    let mut trainer = Trainer::new(plan.network.graph().clone(), &plan.device, plan.precision())?;
    let inputs = plan.network.graph().input_channels();
    let part = settings.micro_batch;
    let x = Array::from_vec(&[part, inputs, rows, columns], vec![0.0; part * inputs * rows * columns])?;
    let x = x.to(&plan.device)?;
    let mut seconds = 0.0;
    for step in 0..=TIMED {
        let begun = Instant::now();
        let y = trainer.forward(&x, &vec![1.0; part], &vec![None; part])?;
        trainer.backward(&y)?;
        let update = Update {
            step: 1,
            learning_rate: 0.0,
            betas: settings.betas,
            epsilon: settings.epsilon,
            weight_decay: 0.0,
            clip: None,
            average_decay: 0.0,
        };
        // The norm comes back to the host, so everything before it is done.
        trainer.update(&update)?;
        seconds = if step == 0 { 0.0 } else { seconds + begun.elapsed().as_secs_f64() / TIMED as f64 };
    }
    let step = seconds * (settings.batch / part) as f64;
    let all = step * settings.steps as f64;
    let epochs = (settings.steps * settings.batch as u64) as f64 / plan.data.epoch().len() as f64;
    super::super::print(&format!(
        "time: {step:.3} s a step of {} images, {} for {} steps ({epochs:.1} epochs), without validation and samples\n",
        settings.batch,
        duration(all),
        settings.steps
    ))
}

fn element(plan: &Plan<'_>) -> usize {
    if plan.precision() == recon::network::Precision::Bf16 { 2 } else { 4 }
}

/// `3 h 20 min`, `4 min 10 s`, `12 s`.
pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_are_read_at_a_glance() {
        let said = [12.4, 250.0, 12_000.0].map(duration);
        assert_eq!(said, ["12 s", "4 min 10 s", "3 h 20 min"]);
    }
}
