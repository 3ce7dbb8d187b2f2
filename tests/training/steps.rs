//! The optimiser by itself.

use super::layers::{INPUTS, OUTPUTS, every_layer, random};
use super::{trainer, usual};
use recon::network::Update;

/// AdamW as in the paper, in f64.
#[test]
fn a_step_is_that_of_the_paper() {
    let graph = every_layer(1);
    let mut network = trainer(graph);
    let (x, v) = (random(1, &[1, INPUTS, 8, 8]), random(2, &[1, OUTPUTS, 8, 8]));
    let start: Vec<f64> = network.state().unwrap().numbers.iter().map(|&w| w.into()).collect();
    let mut expected: Vec<[f64; 4]> = start.iter().map(|&w| [w, 0.0, 0.0, w]).collect();
    for step in 1..=4 {
        let update = Update { epsilon: 1e-3, clip: (step != 3).then_some(0.4), ..usual(step) };
        network.forward(&x, &[step as f64], &[Some(1)]).unwrap();
        network.backward(&v).unwrap();
        let gradient: Vec<f64> = network.gradient().unwrap().iter().map(|&g| g.into()).collect();
        let length = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        let norm = network.update(&update).unwrap();
        assert!((norm / length - 1.0).abs() < 1e-12);
        assert!(network.gradient().unwrap().iter().all(|&g| g == 0.0));
        let shrink = update.clip.map_or(1.0, |clip| (clip / length).min(1.0));
        let (b1, b2) = update.betas;
        for ([w, m, v, a], g) in expected.iter_mut().zip(&gradient) {
            let g = shrink * g;
            *m = b1 * *m + (1.0 - b1) * g;
            *v = b2 * *v + (1.0 - b2) * g * g;
            let (m_hat, v_hat) = (*m / (1.0 - b1.powi(step as i32)), *v / (1.0 - b2.powi(step as i32)));
            *w -= update.learning_rate * update.weight_decay * *w;
            *w -= update.learning_rate * m_hat / (v_hat.sqrt() + update.epsilon);
            *a = update.average_decay * *a + (1.0 - update.average_decay) * *w;
        }
        let state = network.state().unwrap();
        let got = [&state.numbers, &state.first_moment, &state.second_moment, &state.average];
        for (which, got) in got.into_iter().enumerate() {
            let size = expected.iter().map(|e| e[which].powi(2)).sum::<f64>().sqrt();
            let error = expected.iter().zip(got).map(|(e, &g)| (e[which] - f64::from(g)).powi(2)).sum::<f64>().sqrt();
            assert!(error < 1e-6 * size, "step {step}, part {which}: off by {:.1e}", error / size);
        }
    }
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    let mut network = trainer(every_layer(1));
    let x = random(1, &[1, INPUTS, 8, 8]);
    let mut v = random(2, &[1, OUTPUTS, 8, 8]);
    let step = |network: &mut recon::network::Trainer, v: &recon::operators::Array| {
        network.forward(&x, &[0.5], &[None]).unwrap();
        network.backward(v).unwrap();
        network.update(&usual(1)).unwrap()
    };
    assert!(step(&mut network, &v).is_finite());
    let before = network.state().unwrap();
    let good = v.clone();
    v.as_f32_mut().unwrap()[7] = f32::INFINITY;
    assert!(!step(&mut network, &v).is_finite());
    assert_eq!(network.state().unwrap(), before);
    assert!(step(&mut network, &good).is_finite());
    assert_ne!(network.state().unwrap(), before);
}

/// A training that is written down and taken up again goes on as if nothing had been.
#[test]
fn a_restored_training_goes_on_with_the_same_bits() {
    let x = random(1, &[2, INPUTS, 8, 8]);
    let v = random(2, &[2, OUTPUTS, 8, 8]);
    let step = |network: &mut recon::network::Trainer, step: u64| {
        network.forward(&x, &[0.5, step as f64], &[None, Some(2)]).unwrap();
        network.backward(&v).unwrap();
        network.update(&usual(step)).unwrap();
    };
    let mut through = trainer(every_layer(1));
    (1..=4).for_each(|at| step(&mut through, at));
    let mut first = trainer(every_layer(1));
    (1..=2).for_each(|at| step(&mut first, at));
    let kept = first.state().unwrap();
    let mut second = trainer(every_layer(1));
    step(&mut second, 1);
    second.forward(&x, &[0.5, 1.0], &[None; 2]).unwrap();
    second.backward(&v).unwrap();
    second.restore(&kept).unwrap();
    (3..=4).for_each(|at| step(&mut second, at));
    assert_eq!(second.state().unwrap(), through.state().unwrap());
}
