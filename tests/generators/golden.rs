//! One reverse step of DDPM and DDIM as a reference implementation takes it (float32, images on [-1, 1]).

use std::collections::HashMap;

use candle_core::{Device, Tensor};
use operators::Array;
use recon::denoiser::LearnedVariance;
use recon::generators::{Ddpm, Variance};
use recon::schedule::Schedule;
use recon::step::ddim_with;

use crate::support::methods::abar;
use crate::vectors::vectors as vectors_of;

/// `abar` after time `t`, counted from 0; 1 before the first.
fn abar_after(t: i64) -> f64 {
    if t < 0 { 1.0 } else { abar(t as usize + 1) }
}

fn sigma(abar: f64) -> f64 {
    ((1.0 - abar) / abar).sqrt() / 2.0
}

fn map(values: &[f32], f: impl Fn(f64) -> f64) -> Array {
    Array::from_vec(&[1, 1, 8, 8], values.iter().map(|&v| f(v.into()) as f32).collect()).unwrap()
}

/// The step of `case` in data units with the next level off by a factor, back on [-1, 1]; relative distance to the reference.
fn distance(scheduler: &str, (t, t_prev): (i64, i64), of: &dyn Fn(&str) -> Option<Vec<f32>>, off: f64) -> f64 {
    let (abar, before) = (abar_after(t), abar_after(t_prev));
    let (level, next) = (sigma(abar), off * sigma(before));
    // u_t = sqrt(abar) (2 x - 1).
    let x = map(&of("x").unwrap(), |u| (u / abar.sqrt() + 1.0) / 2.0);
    let x0 = x.combine(1.0, &map(&of("eps").unwrap(), |e| e), -level).unwrap();
    let z = of("noise").map(|noise| map(&noise, |z| z));
    let ddpm = |variance, learned: Option<&Array>| {
        let method = Ddpm { schedule: Schedule::ddpm(1000), variance };
        method.step(&x, &x0, (level, next), learned, z.as_ref().unwrap()).unwrap()
    };
    let stepped = match scheduler {
        "ddpm_fixed_small" => ddpm(Variance::Small, None),
        "ddpm_fixed_large" => ddpm(Variance::Large, None),
        "ddpm_learned_range" => {
            let learned = LearnedVariance::new(2.0 * level, 2.0 * next).unwrap();
            ddpm(Variance::Learned, Some(&map(&of("v").unwrap(), |v| learned.at(v) / 4.0)))
        }
        _ => {
            let eta = scheduler.strip_prefix("ddim_eta").unwrap().parse().unwrap();
            ddim_with(&x, &x0, (level, next), eta, z.as_ref()).unwrap()
        }
    };
    let back = map(stepped.as_f32().unwrap(), |x| before.sqrt() * (2.0 * x - 1.0));
    let expected = map(&of("prev").unwrap(), |u| u);
    back.sub(&expected).unwrap().norm() / expected.norm()
}

#[test]
fn steps_are_those_of_the_reference_implementation() {
    let path = vectors_of("scheduler_steps.safetensors");
    let tensors: HashMap<String, Tensor> = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let json = std::fs::read_to_string(vectors_of("scheduler_steps.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let cases = json["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 40);
    let mut worst = 0f64;
    for case in cases {
        let number = case["case"].as_i64().unwrap();
        let of = |name: &str| {
            let tensor = tensors.get(&format!("{name}.{number}"))?;
            Some(tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap())
        };
        let scheduler = case["scheduler"].as_str().unwrap();
        let times = (case["t"].as_i64().unwrap(), case["t_prev"].as_i64().unwrap());
        let far = distance(scheduler, times, &of, 1.0);
        assert!(far < 1e-4, "case {number}, {scheduler} {times:?}: {far:e}");
        worst = worst.max(far);
        if times.1 >= 0 {
            let wrong = distance(scheduler, times, &of, 0.95);
            assert!(wrong > 1e-4, "case {number}, {scheduler} {times:?}: a level 5 % off by {wrong:e} only");
        }
    }
    println!("40 steps within {worst:.1e} of the reference");
}
