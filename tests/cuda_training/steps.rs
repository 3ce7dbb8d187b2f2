//! Steps of the optimiser, repetition, and what is not finite.

use std::ops::Range;

use recon::network::{Precision, State, Trainer, Update};
use recon::operators::{Array, Device};

use super::compare::{conditions, distance, length};
use super::gpu::gpu;
use super::graphs::*;

fn update(step: u64) -> Update {
    Update {
        step,
        learning_rate: 1e-3,
        betas: (0.9, 0.99),
        // Large enough that a gradient of nearly zero does not move its number by its rounding errors.
        epsilon: 1e-2,
        weight_decay: 0.01,
        clip: Some(1.0),
        average_decay: 0.9,
    }
}

/// Steps of training towards nothing in particular, with other images in each; returns the norms.
fn steps(trainer: &mut Trainer, range: Range<u64>, shape: &[usize]) -> Vec<f64> {
    let step = |step: u64| {
        let (levels, labels) = conditions(shape[0], 0);
        let y = trainer.forward(&random(step, shape), &levels, &labels).unwrap().to(&Device::Cpu).unwrap();
        let target = random(100 + step, shape);
        trainer.backward(&y.sub(&target).unwrap()).unwrap();
        trainer.update(&update(step)).unwrap()
    };
    range.map(step).collect()
}

fn parts(state: &State) -> [(&'static str, &[f32]); 4] {
    [
        ("numbers", &state.numbers),
        ("first moment", &state.first_moment),
        ("second moment", &state.second_moment),
        ("average", &state.average),
    ]
}

#[test]
fn steps_are_those_of_the_cpu() {
    let Some(gpu) = gpu() else { return };
    let (graph, shape) = (bundled(), [2, 1, 32, 48]);
    let start = graph.numbers();
    let mut cpu = Trainer::new(graph.clone(), &Device::Cpu, Precision::F32).unwrap();
    let mut there = Trainer::new(graph, &Device::Cuda(gpu), Precision::F32).unwrap();
    for range in [1..2, 2..5] {
        let (expected, got) = (steps(&mut cpu, range.clone(), &shape), steps(&mut there, range.clone(), &shape));
        println!("norms of the gradients {expected:?} {got:?}");
        for (expected, got) in expected.iter().zip(&got) {
            assert!((expected - got).abs() < 1e-3 * expected, "{expected} {got}");
        }
        let (expected, got) = (cpu.state().unwrap(), there.state().unwrap());
        for ((name, expected), (_, got)) in parts(&expected).into_iter().zip(parts(&got)) {
            // What was moved, not what was there before.
            let moved: Vec<f32> = match name {
                "numbers" | "average" => expected.iter().zip(&start).map(|(e, s)| e - s).collect(),
                _ => expected.to_vec(),
            };
            let error = distance(got, expected) / length(&moved);
            println!("after step {}: {name} {error:.1e}", range.end - 1);
            assert!(error < 2e-3, "after step {}: {name} {error:.1e}", range.end - 1);
        }
    }
}

#[test]
fn training_repeats_bit_for_bit_and_goes_on_from_a_state() {
    let Some(gpu) = gpu() else { return };
    let device = Device::Cuda(gpu);
    for precision in [Precision::Bf16, Precision::Tf32] {
        let (graph, shape) = (bundled(), [3, 1, 48, 32]);
        let new = || Trainer::new(graph.clone(), &device, precision).unwrap();
        let (mut first, mut second) = (new(), new());
        steps(&mut first, 1..4, &shape);
        let between = first.state().unwrap();
        let norms = steps(&mut first, 4..6, &shape);
        steps(&mut second, 1..4, &shape);
        assert!(second.state().unwrap() == between, "{precision:?}: the same steps, other numbers");
        let mut resumed = new();
        // What it did before does not matter.
        steps(&mut resumed, 7..8, &shape);
        resumed.restore(&between).unwrap();
        assert!(resumed.state().unwrap() == between);
        assert!(resumed.gradient().unwrap().iter().all(|&g| g == 0.0));
        assert_eq!(steps(&mut resumed, 4..6, &shape), norms, "{precision:?}");
        assert!(resumed.state().unwrap() == first.state().unwrap(), "{precision:?}: resumed, other numbers");
    }
}

/// The loss of a fixed batch falls: the numbers that the kernels read are those that were stepped.
#[test]
fn a_fixed_batch_is_learned() {
    let Some(gpu) = gpu() else { return };
    let shape = [4, 1, 32, 32];
    let mut trainer = Trainer::new(bundled(), &Device::Cuda(gpu), Precision::Bf16).unwrap();
    let (x, target) = (random(1, &shape), random(2, &shape));
    let mut losses = Vec::new();
    for step in 1..=40 {
        let (levels, labels) = conditions(shape[0], 0);
        let y = trainer.forward(&x, &levels, &labels).unwrap().to(&Device::Cpu).unwrap();
        let off = y.sub(&target).unwrap();
        losses.push(off.norm() / target.norm());
        trainer.backward(&off.scale(1.0 / 4096.0)).unwrap();
        trainer.update(&Update { epsilon: 1e-8, ..update(step) }).unwrap();
    }
    println!("{losses:.3?}");
    assert!(losses[39] < 0.9 * losses[0], "{losses:?}");
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    let Some(gpu) = gpu() else { return };
    let shape = [1, 1, 16, 16];
    let mut trainer = Trainer::new(bundled(), &Device::Cuda(gpu), Precision::Bf16).unwrap();
    steps(&mut trainer, 1..2, &shape);
    let before = trainer.state().unwrap();
    trainer.forward(&random(1, &shape), &[3.0], &[None]).unwrap();
    let bad = Array::from_vec(&shape, vec![f32::INFINITY; 256]).unwrap();
    trainer.backward(&bad).unwrap();
    assert!(!trainer.update(&update(2)).unwrap().is_finite());
    assert!(trainer.state().unwrap() == before);
    assert!(trainer.gradient().unwrap().iter().all(|&g| g == 0.0));
    assert!(steps(&mut trainer, 2..3, &shape)[0].is_finite());
}
