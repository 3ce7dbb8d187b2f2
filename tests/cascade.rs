//! Cascades of priors shown low-resolution images: draws against the law of the chain, `p(x_1 | y) p(x_2 | x_1) ...`, in closed form.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::ops::ControlFlow;

use nalgebra::{DMatrix, DVector};
use operators::downsample::{bicubic_enlarging_matrix, bicubic_matrix};
use operators::{Array, Context, ForwardOperator, Noise, Space};
use recon::conditions::{Condition, Kind};
use recon::denoiser::{Cascade, Denoiser, JointGaussian};
use recon::samplers::{self, Observer, Problem, Progress, Run, Silent};
use support::statistics::Scores;
use support::{dense, from_vectors, gaussian_prior, streams, to_vectors};

const KARRAS: &str = "sigma=40,sigma_min=0.002,spacing=karras";

/// A stage in closed form: `x` Gaussian, its condition `c = E S x + n`, `S` the reduction and `E` the interpolation.
#[derive(Clone)]
struct Stage {
    space: Space,
    condition: Condition,
    /// `E`, of vectors of pixels row by row.
    enlarging: DMatrix<f64>,
    mean: DVector<f64>,
    of_c: DVector<f64>,
    joint: DMatrix<f64>,
}

impl Stage {
    fn new((height, width): (usize, usize), factor: usize, augmentation: f64) -> Self {
        let space = Space::real(&[1, height, width]);
        let small = |side: usize| bicubic_matrix(side, factor as f64);
        let large = |side: usize| bicubic_enlarging_matrix(side.div_ceil(factor), side, factor as f64);
        let reducing = small(height).kronecker(&small(width));
        let enlarging = large(height).kronecker(&large(width));
        let marginal = gaussian_prior(&space);
        let (n, b) = (space.len(), &enlarging * reducing);
        let cross = marginal.covariance() * b.transpose();
        // What is augmented, and a little so that the law is regular.
        let of_c = &b * &cross + DMatrix::identity(n, n) * (augmentation.powi(2) + 0.03f64.powi(2));
        let mut joint = DMatrix::zeros(2 * n, 2 * n);
        joint.view_mut((0, 0), (n, n)).copy_from(marginal.covariance());
        joint.view_mut((0, n), (n, n)).copy_from(&cross);
        joint.view_mut((n, 0), (n, n)).copy_from(&cross.transpose());
        joint.view_mut((n, n), (n, n)).copy_from(&of_c);
        let condition = Condition { kind: Kind::LowResolution { factor }, augmentation, noise: 0.0, dropout: 0.1 };
        Self { space, condition, enlarging, of_c: &b * marginal.mean(), mean: marginal.mean().clone(), joint }
    }

    fn prior(&self) -> Box<dyn Denoiser> {
        let mean = DVector::from_iterator(self.joint.nrows(), self.mean.iter().chain(&self.of_c).copied());
        Box::new(JointGaussian::new(&self.space, &mean, &self.joint, self.condition.clone()).unwrap())
    }

    /// `K = Sigma_xc Sigma_cc^-1` and the covariance given `c`.
    fn given(&self) -> (DMatrix<f64>, DMatrix<f64>) {
        let n = self.space.len();
        let block = |i: usize, j: usize| self.joint.view((i * n, j * n), (n, n)).into_owned();
        let gain = block(0, 1) * block(1, 1).cholesky().unwrap().inverse();
        let rest = block(0, 0) - &gain * block(1, 0);
        (gain, rest)
    }
}

/// Stages that end in images of one size, and what was measured of one.
struct Scene {
    stages: Vec<Stage>,
    operator: Box<dyn ForwardOperator>,
    y: Array,
}

/// Mistakes in the law.
#[derive(Clone, Copy, PartialEq)]
enum Wrong {
    Nothing,
    /// The measurement is 5 % too large.
    Scale,
    /// Stages show their mean instead of a draw.
    NoSpread,
    /// What is shown between stages has no noise.
    NoAugmentation,
}

impl Scene {
    /// `stages` says the factor and the augmentation of each, the coarsest first.
    fn new(size: (usize, usize), stages: &[(usize, f64)]) -> Self {
        let (mut made, mut sides) = (Vec::new(), size);
        for &(factor, augmentation) in stages.iter().rev() {
            made.push(Stage::new(sides, factor, augmentation));
            sides = (sides.0.div_ceil(factor), sides.1.div_ceil(factor));
        }
        made.reverse();
        let factor: usize = stages.iter().map(|(factor, _)| factor).product();
        let spec = format!("sr:factor={factor}").parse().unwrap();
        let operator = operators::build(&spec, &Context::new(1, size.0, size.1)).unwrap();
        let prior = gaussian_prior(operator.domain());
        let root = prior.covariance().clone().cholesky().unwrap().l();
        let z = to_vectors(&Noise::new(4, streams(1)).normal(operator.domain()).unwrap()).remove(0);
        let y = operator.apply(&from_vectors(operator.domain(), &[prior.mean() + root * z])).unwrap();
        Self { stages: made, operator, y }
    }

    fn cascade(&self) -> Cascade {
        Cascade::new(self.stages.iter().map(Stage::prior).collect()).unwrap()
    }

    fn draw_all(&self, spec: &str, streams: Vec<operators::Stream>, observer: &mut dyn Observer) -> Array {
        let sampler = samplers::build(&spec.parse().unwrap()).unwrap();
        let y = self.y.repeat(streams.len()).unwrap();
        let problem = Problem { operator: &*self.operator, y: &y, noise_std: 0.0 };
        let mut noise = Noise::new(7, streams);
        sampler.sample(&problem, &self.cascade(), &mut Run { noise: &mut noise, observer }).unwrap()
    }

    fn draw(&self, spec: &str, count: usize) -> DMatrix<f64> {
        DMatrix::from_columns(&to_vectors(&self.draw_all(spec, streams(count), &mut Silent)))
    }

    /// Mean and covariance of the last image: `m = mu + K (E m' - mu_c)`, `V = S + K (E V' E^T + a^2) K^T`.
    fn law(&self, wrong: Wrong) -> (DVector<f64>, DMatrix<f64>) {
        let mut mean = to_vectors(&self.y).remove(0);
        if wrong == Wrong::Scale {
            mean *= 1.05;
        }
        let mut spread = DMatrix::zeros(mean.len(), mean.len());
        for stage in &self.stages {
            let (gain, rest) = stage.given();
            let e = &stage.enlarging;
            let shown = match wrong {
                Wrong::NoSpread => DMatrix::zeros(e.nrows(), e.nrows()),
                _ => e * spread * e.transpose(),
            };
            let level = if wrong == Wrong::NoAugmentation { 0.0 } else { stage.condition.augmentation };
            let shown = shown + DMatrix::identity(e.nrows(), e.nrows()) * level.powi(2);
            mean = &stage.mean + &gain * (e * mean - &stage.of_c);
            spread = rest + &gain * shown * gain.transpose();
        }
        (mean, spread)
    }
}

/// A sampler, the size of an image, and factor and augmentation of each stage.
type Case = (&'static str, (usize, usize), &'static [(usize, f64)]);

#[test]
fn a_cascade_draws_from_the_law_of_its_chain() {
    let cases: [Case; 4] = [
        ("sr3:start=noise,steps=1000", (8, 4), &[(2, 0.1), (2, 0.15)]),
        ("conditional:start=noise,steps=200,solver=dpm-solver++", (8, 4), &[(2, 0.1), (2, 0.15)]),
        // Sides that do not divide, and factors whose order matters.
        ("conditional:start=noise,steps=200,solver=dpm-solver++", (7, 5), &[(2, 0.1), (3, 0.15)]),
        ("conditional:start=noise,steps=200,solver=dpm-solver++", (9, 8), &[(2, 0.0), (2, 0.2), (2, 0.1)]),
    ];
    for (spec, size, stages) in cases {
        let scene = Scene::new(size, stages);
        let samples = scene.draw(&format!("{spec},{KARRAS}"), 2500);
        let scores = |wrong| {
            let (mean, covariance) = scene.law(wrong);
            Scores::new(&samples, &mean, &covariance)
        };
        let right = scores(Wrong::Nothing);
        println!("{spec} {size:?} {stages:?}: {right:?}");
        assert!(right.pass(1e-3), "{spec} {size:?} {stages:?}: {right:?}");
        for (name, wrong) in
            [("scale", Wrong::Scale), ("spread", Wrong::NoSpread), ("augmentation", Wrong::NoAugmentation)]
        {
            assert!(!scores(wrong).pass(1e-3), "{spec} {size:?}: {name} does not show");
        }
        // The law of one stage that knows the whole factor is another one.
        let factor = stages.iter().map(|(factor, _)| factor).product();
        let one = Scene::new(size, &[(factor, 0.0)]);
        let (mean, covariance) = one.law(Wrong::Nothing);
        assert!(!Scores::new(&samples, &mean, &covariance).pass(1e-3), "{spec} {size:?}: one stage");
    }
}

#[test]
fn draws_do_not_depend_on_their_batch_and_repeat() {
    let scene = Scene::new((8, 4), &[(2, 0.1), (2, 0.15)]);
    let spec = "sr3:steps=5";
    let all = scene.draw_all(spec, streams(3), &mut Silent);
    for (item, stream) in streams(3).into_iter().enumerate() {
        let alone = scene.draw_all(spec, vec![stream], &mut Silent);
        assert_eq!(alone.as_f32().unwrap(), all.items(item, item + 1).unwrap().as_f32().unwrap());
    }
}

/// Steps as an observer is told.
struct Steps(Vec<(usize, usize, Vec<usize>)>);

impl Observer for Steps {
    fn step(&mut self, at: &Progress<'_>) -> ControlFlow<()> {
        self.0.push((at.step, at.steps, at.x0.shape().to_vec()));
        if self.0.len() < 100 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }
}

#[test]
fn the_steps_of_all_stages_are_those_of_one_run() {
    let scene = Scene::new((8, 4), &[(2, 0.0), (2, 0.0)]);
    let mut steps = Steps(Vec::new());
    scene.draw_all("sr3:steps=3", streams(1), &mut steps);
    let expected: Vec<_> =
        (1..=6).map(|step| (step, 6, if step <= 3 { vec![1, 1, 4, 2] } else { vec![1, 1, 8, 4] })).collect();
    assert_eq!(steps.0, expected);
}

#[test]
fn only_the_last_stage_is_made_to_explain_the_measurement() {
    for size in [(8, 4), (7, 5)] {
        let scene = Scene::new(size, &[(2, 0.1), (2, 0.15)]);
        let a = dense(&*scene.operator);
        let y = to_vectors(&scene.y).remove(0);
        let far = |spec: &str| {
            let samples = scene.draw(spec, 4);
            samples.column_iter().map(|x| (&a * x - &y).amax()).fold(0.0, f64::max)
        };
        let with = "conditional:steps=20,solver=dpm-solver++,project=true";
        assert!(far(with) < 1e-5, "{}", far(with));
        assert!(far(&with.replace("true", "false")) > 1e-2);
    }
    // Two reductions in a row are not one: no image between explains the measurement as `sr` measures it.
    let (half, quarter) = (|n| bicubic_matrix(n, 2.0), bicubic_matrix(32, 4.0));
    let difference = (half(16) * half(32) - &quarter).norm() / quarter.norm();
    println!("sr-2x after sr-2x differs from sr-4x by {difference:.3} of its norm");
    assert!(difference > 0.01);
}

#[test]
fn guidance_clipping_and_eta_reach_every_stage() {
    let scene = Scene::new((8, 4), &[(2, 0.0), (2, 0.0)]);
    // Clipped to nearly nothing, the image between says nothing, and so does the last one.
    let clipped = scene.draw("conditional:steps=5,clip=0.01", 1);
    assert!(clipped.amax() < 0.02, "{}", clipped.amax());
    // A stage by hand, then the other with what that made: the same chain without noise of its own.
    for options in ["guidance=1.5", "guidance=1,clip=0.8", "guidance=0.5,clip=0.9"] {
        let spec = format!("conditional:steps=6,{options}");
        let found = scene.draw(&spec, 1);
        let sampler = samplers::build(&spec.parse().unwrap()).unwrap();
        let mut noise = Noise::new(7, streams(1));
        let mut image = scene.y.clone();
        for stage in &scene.stages {
            let &[_, h, w] = stage.space.shape() else { panic!() };
            let operator = operators::build(&"sr-2x".parse().unwrap(), &Context::new(1, h, w)).unwrap();
            let problem = Problem { operator: &*operator, y: &image, noise_std: 0.0 };
            let mut run = Run { noise: &mut noise, observer: &mut Silent };
            image = sampler.sample(&problem, stage.prior().as_ref(), &mut run).unwrap();
        }
        let by_hand = to_vectors(&image).remove(0);
        assert!((found.column(0) - by_hand).amax() < 1e-6, "{options}");
    }
}

#[test]
fn stages_that_do_not_fit_are_named() {
    let stage = |size, factor| Stage::new(size, factor, 0.0).prior();
    let error = |stages: Vec<Box<dyn Denoiser>>| Cascade::new(stages).unwrap_err().to_string();
    assert!(error(Vec::new()).contains("no stage"));
    let swapped = error(vec![stage((8, 4), 2), stage((4, 2), 2)]);
    assert!(swapped.contains("stage 2 is shown images of") && swapped.contains("stage 1 draws"), "{swapped}");
    assert!(error(vec![stage((4, 2), 2), stage((8, 4), 3)]).contains("stage 2 is shown"));
    let plain = Box::new(gaussian_prior(&Space::real(&[1, 4, 2])));
    assert!(error(vec![plain, stage((8, 4), 2)]).contains("stage 1 is unconditional"));
    let look = Condition {
        kind: Kind::FirstLook { operator: "mri-4x".parse().unwrap() },
        ..Stage::new((8, 4), 2, 0.0).condition
    };
    let looking = Stage { condition: look, ..Stage::new((8, 4), 2, 0.0) };
    let said = error(vec![stage((4, 2), 2), looking.prior()]);
    assert!(said.contains("stage 2 is conditioned on first looks at mri-4x"), "{said}");
    // Channels are part of the space.
    let space = Space::real(&[2, 4, 2]);
    let n = space.len();
    let two = JointGaussian::new(
        &space,
        &DVector::zeros(2 * n),
        &DMatrix::identity(2 * n, 2 * n),
        Stage::new((4, 2), 2, 0.0).condition,
    );
    assert!(error(vec![Box::new(two.unwrap()), stage((8, 4), 2)]).contains("stage 1 draws images of"));

    let scene = Scene::new((8, 4), &[(2, 0.0), (2, 0.0)]);
    let cascade = scene.cascade();
    let whole = cascade.condition().unwrap();
    assert_eq!(whole.kind, Kind::LowResolution { factor: 4 });
    let x = from_vectors(cascade.space(), &[DVector::zeros(32)]);
    assert!(cascade.denoise(&x, 1.0).unwrap_err().to_string().contains("4 times smaller"));
    assert!(cascade.linearize(&x, 1.0).is_err());
    assert!(cascade.conditioned(Some(&x)).err().unwrap().to_string().contains("stage by stage"));
    assert!(cascade.conditioned(None).unwrap().denoise(&x, 1.0).is_ok());

    let fails = |spec: &str, op: &str, cascade: &Cascade| {
        let operator = operators::build(&op.parse().unwrap(), &Context::new(1, 8, 4)).unwrap();
        let y = operator.range().zeros(1, &operators::Device::Cpu);
        let problem = Problem { operator: &*operator, y: &y, noise_std: 0.0 };
        let sampler = samplers::build(&spec.parse().unwrap()).unwrap();
        let mut noise = Noise::new(7, streams(1));
        sampler
            .sample(&problem, cascade, &mut Run { noise: &mut noise, observer: &mut Silent })
            .unwrap_err()
            .to_string()
    };
    assert!(fails("sr3", "sr-2x", &cascade).contains("4 times smaller (--op sr-4x)"));
    assert!(fails("dps", "sr-4x", &cascade).contains("conditioned on low-resolution images, 4 times smaller"));
    let mut never = scene.stages.clone();
    never[1].condition.dropout = 0.0;
    let never = Cascade::new(never.iter().map(Stage::prior).collect()).unwrap();
    assert!(fails("sr3:guidance=2", "sr-4x", &never).contains("without ever dropping"));
}
