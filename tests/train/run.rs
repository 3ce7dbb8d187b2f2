//! The loop: it learns, goes on exactly, and says what is wrong.

use std::ops::ControlFlow;

use operators::Device;
use recon::Error;
use recon::conditions::{Condition, Kind};
use recon::network::{Precision, Prediction, Schedule, Settings, Unet, UnetSettings};
use recon::train::{
    Augmentation, Checkpoint, DataSettings, Dataset, Event, Objective, Pairing, Rate, RunSettings, Training,
    Validation, Watcher, average_decay,
};

use super::model::tiny;
use super::scene::{folder, read, settings};

const SIDE: usize = 16;

/// Keeps what happened, and stops after a step.
#[derive(Default)]
pub struct Record {
    losses: Vec<(u64, f64, f64)>,
    validations: Vec<(u64, Validation)>,
    sampled: Vec<u64>,
    kept: Vec<u64>,
    skipped: u64,
    stop: Option<u64>,
}

impl Record {
    pub fn stopping_after(step: u64) -> Self {
        Self { stop: Some(step), ..Self::default() }
    }
}

impl Watcher for Record {
    fn see(&mut self, event: &Event<'_>) -> recon::Result<ControlFlow<()>> {
        match event {
            Event::Step { step, loss, gradient_norm, .. } => {
                self.losses.push((*step, *loss, *gradient_norm));
                if self.stop == Some(*step) {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Event::Skipped { .. } => self.skipped += 1,
            Event::Validated { step, validation } => self.validations.push((*step, (*validation).clone())),
            Event::Sampled { step, images } => {
                assert!(images.iter().all(|v| (-0.01..=1.01).contains(v)));
                self.sampled.push(*step);
            }
            Event::Kept { step, state } => {
                assert!(state.numbers.iter().all(|v| v.is_finite()));
                self.kept.push(*step);
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

pub struct Case {
    network: Unet,
    pub data: Dataset,
    objective: Objective,
    settings: RunSettings,
}

impl Case {
    pub fn new(steps: u64) -> Self {
        let folder = folder(SIDE, 8, 3);
        let data = read(&settings(folder.path(), SIDE)).unwrap();
        let rate = Rate { peak: 4e-3, warm_up: 5.min(steps / 2), steps, end: 0.0 };
        let settings = RunSettings {
            steps,
            batch: 8,
            micro_batch: 8,
            rate,
            betas: (0.9, 0.999),
            epsilon: 1e-8,
            weight_decay: 0.01,
            clip: Some(1.0),
            average_decay: 0.98,
            seed: 1,
            validate_every: 1_000_000,
            validation_images: 16,
            sample_every: None,
            samples: 4,
            checkpoint_every: 1_000_000,
        };
        let objective = Objective::steps(Schedule::linear(1000, (1e-4, 0.02), Prediction::Epsilon));
        Self { network: Unet::new(&tiny(), 2).unwrap(), data, objective, settings }
    }

    pub fn training(&self) -> Training<'_> {
        Training {
            network: &self.network,
            data: &self.data,
            objective: &self.objective,
            augmentation: Augmentation::default(),
            model: Settings::default(),
            settings: self.settings.clone(),
            device: &Device::Cpu,
            precision: Precision::F32,
        }
    }
}

#[test]
fn a_tiny_network_learns() {
    let mut case = Case::new(240);
    case.settings.sample_every = Some(240);
    let (folder, mut record) = (tempfile::tempdir().unwrap(), Record::default());
    let state = case.training().run(folder.path(), None, &mut record).unwrap();
    let (first, last) = (&record.validations[0].1, &record.validations.last().unwrap().1);
    println!("validation by quarter: {:?} -> {:?}", first.loss, last.loss);
    // Nothing was learned: the network says 0, and the error of the noise is its variance.
    assert!((first.mean_loss() - 1.0).abs() < 0.1, "{first:?}");
    assert!(last.mean_loss() < 0.5 * first.mean_loss(), "{last:?}");
    assert!(last.loss[3] < 0.3 * first.loss[3], "strong noise is learned first: {last:?}");
    assert_eq!(last.loss, last.noise_error, "epsilon is the noise");
    assert_eq!((&record.sampled[..], &record.kept[..]), (&[240][..], &[240][..]));
    assert!(state.average != state.numbers);
    // The average, not the last numbers, is what was tried, and trying it changed nothing.
    let kept = Checkpoint::read(folder.path()).unwrap().unwrap();
    assert!(kept.state == state && kept.step == 240);
}

#[test]
fn a_resumed_training_has_the_same_curve_bit_for_bit() {
    let mut case = Case::new(6);
    (case.settings.validate_every, case.settings.checkpoint_every) = (2, 3);
    let run = |resume: bool, folder: &std::path::Path, stop: Option<u64>| {
        let mut record = Record { stop, ..Record::default() };
        let resumed = if resume { Checkpoint::read(folder).unwrap() } else { None };
        let result = case.training().run(folder, resumed, &mut record);
        (result, record)
    };
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (uninterrupted, curve) = run(false, whole.path(), None);
    let (interrupted, mut first) = run(false, parts.path(), Some(3));
    assert!(matches!(interrupted, Err(Error::Interrupted)));
    assert_eq!(first.kept, [3]);
    let (resumed, second) = run(true, parts.path(), None);
    first.losses.extend(second.losses);
    assert_eq!(first.losses, curve.losses);
    assert_eq!(first.losses.len(), 6);
    first.validations.extend(second.validations);
    assert_eq!(first.validations, curve.validations);
    assert!(resumed.unwrap() == uninterrupted.unwrap());
    // And in the middle of nowhere.
    let (_, _) = run(false, parts.path(), Some(5));
    let (resumed, _) = run(true, parts.path(), None);
    assert!(resumed.unwrap() == Checkpoint::read(whole.path()).unwrap().unwrap().state);
}

#[test]
fn a_batch_in_parts_has_the_gradient_of_the_whole() {
    let mut case = Case::new(1);
    let norm = |case: &Case| {
        let (folder, mut record) = (tempfile::tempdir().unwrap(), Record::default());
        case.training().run(folder.path(), None, &mut record).unwrap();
        record.losses[0]
    };
    let whole = norm(&case);
    case.settings.micro_batch = 2;
    let parts = norm(&case);
    assert!((whole.1 - parts.1).abs() < 1e-6 && (whole.2 / parts.2 - 1.0).abs() < 1e-4, "{whole:?} {parts:?}");
}

#[test]
fn another_training_is_not_resumed() {
    let case = Case::new(4);
    let (folder, mut record) = (tempfile::tempdir().unwrap(), Record { stop: Some(2), ..Record::default() });
    assert!(case.training().run(folder.path(), None, &mut record).is_err());
    let kept = Checkpoint::read(folder.path()).unwrap().unwrap();
    let mut other = case.training();
    other.settings.rate.peak = 1e-3;
    other.settings.seed = 9;
    let error = other.run(folder.path(), Some(kept.clone()), &mut record).unwrap_err().to_string();
    assert!(error.contains("learning rate: 0.004 then, 0.001 now") && error.contains("seed: 1 then, 9 now"), "{error}");
    let mut other = case.training();
    let objective = Objective::edm(0.5);
    other.objective = &objective;
    assert!(other.run(folder.path(), Some(kept), &mut record).unwrap_err().to_string().contains("objective"));
}

#[test]
fn a_gradient_that_is_not_finite_ends_it_with_a_message() {
    let mut case = Case::new(20);
    let mut numbers = case.network.graph().numbers();
    let last = numbers.len() - 1;
    // The bias of the last convolution: an output that overflows when it is squared.
    numbers[last] = 1e38;
    let folder = tempfile::tempdir().unwrap();
    let scheduler = case.objective.scheduler_config().unwrap();
    case.network.write(folder.path(), &numbers, recon::network::Store::F32, &scheduler, &Default::default()).unwrap();
    case.network = Unet::open(folder.path()).unwrap();
    let mut record = Record::default();
    let error = case.training().run(folder.path(), None, &mut record).unwrap_err();
    assert!(matches!(error, Error::Numerical(_)), "{error}");
    assert!(error.to_string().contains("step 5: the gradient was not finite 5 times in a row"), "{error}");
    assert_eq!((record.skipped, record.losses.len()), (5, 0));
}

#[test]
fn what_does_not_fit_is_said_before_the_first_step() {
    let mut case = Case::new(4);
    let fails = |training: Training<'_>, words: &str| {
        let error = training.check().unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
    };
    let mut training = case.training();
    training.settings.batch = 1000;
    training.settings.micro_batch = 1000;
    fails(training, "slices to train on are fewer than a batch of 1000");
    let mut training = case.training();
    training.settings.micro_batch = 3;
    fails(training, "whole parts");
    let two = Unet::new(&UnetSettings { in_channels: 2, ..tiny() }, 0).unwrap();
    fails(
        Training { network: &two, ..case.training() },
        "takes 2 channels and returns 1; images, condition and objective want 1 and 1",
    );
    let labelled = Unet::new(&UnetSettings { classes: Some(2), ..tiny() }, 0).unwrap();
    fails(Training { network: &labelled, ..case.training() }, "the data have 0 labels, the network 2");
    let odd = folder(SIDE, 3, 3);
    case.data = read(&DataSettings { size: (17, 16), ..settings(odd.path(), SIDE) }).unwrap();
    fails(case.training(), "images of 17 x 16: this network takes sides that divide by 2");
}

/// Every objective takes some steps down.
#[test]
fn every_objective_is_learned() {
    let steps = || Schedule::linear(1000, (1e-4, 0.02), Prediction::V);
    let objectives = [
        Objective::steps(steps()),
        Objective::between_steps(Schedule::cosine(1000, Prediction::Sample)),
        Objective::edm(0.5),
        Objective::score_matching((0.01, 50.0)),
        Objective::flow(Pairing::OptimalTransport),
        Objective { learned_variance: true, ..Objective::steps(Schedule::cosine(1000, Prediction::Epsilon)) },
    ];
    for objective in objectives {
        let mut case = Case::new(40);
        let outputs = objective.outputs(1);
        case.network = Unet::new(&UnetSettings { out_channels: outputs, ..tiny() }, 3).unwrap();
        case.objective = objective;
        let (folder, mut record) = (tempfile::tempdir().unwrap(), Record::default());
        case.training().run(folder.path(), None, &mut record).unwrap();
        let (first, last) = (record.validations[0].1.mean_loss(), record.validations.last().unwrap().1.mean_loss());
        println!("{:?}: {first} -> {last}", case.objective.schedule.prediction);
        assert!(last < 0.9 * first, "{:?}: {first} -> {last}", case.objective.schedule.prediction);
    }
}

#[test]
fn conditions_are_learned() {
    let kinds = [Kind::LowResolution { factor: 2 }, Kind::FirstLook { operator: "mri:accel=2".parse().unwrap() }];
    for kind in kinds {
        let mut case = Case::new(60);
        case.settings.sample_every = Some(60);
        case.network = Unet::new(&UnetSettings { in_channels: 2, ..tiny() }, 3).unwrap();
        let condition = Condition { kind, augmentation: 0.01, noise: 0.0, dropout: 0.2 };
        let mut training = case.training();
        training.model = Settings { condition: Some(condition), dropout: 0.2, ..Settings::default() };
        let (folder, mut record) = (tempfile::tempdir().unwrap(), Record::default());
        training.run(folder.path(), None, &mut record).unwrap();
        let (first, last) = (record.validations[0].1.mean_loss(), record.validations.last().unwrap().1.mean_loss());
        assert!(last < 0.7 * first, "{first} -> {last}");
        assert_eq!(record.sampled, [60]);
        // The same network without its condition is not what was asked for.
        let error = case.training().check().unwrap_err().to_string();
        assert!(
            error.contains("takes 2 channels and returns 1; images, condition and objective want 1 and 1"),
            "{error}"
        );
    }
}

#[test]
fn the_average_follows_closely_at_first() {
    assert!((average_decay(0.9999, 1) - 2.0 / 11.0).abs() < 1e-12);
    assert_eq!(average_decay(0.9999, 1_000_000), 0.9999);
    assert_eq!(average_decay(0.0, 5), 0.0);
}
