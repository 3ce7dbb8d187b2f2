//! DPM-Solver++ and EDM on a Gaussian prior: affine recursions in the variables of their papers, and their order against the exact flow.

use nalgebra::{DMatrix, SymmetricEigen};
use operators::Space;

use super::recursions::{clean, recursion, start};
use super::scene::{Scene, draw};
use crate::support::affine::{Affine, Recursion, Step};

/// Karras et al., equation 5, with the zero at the end.
fn karras(max: f64, min: f64, steps: usize) -> Vec<f64> {
    let root = |v: f64| v.powf(1.0 / 7.0);
    let at = |i: usize| root(max) + i as f64 / (steps - 1) as f64 * (root(min) - root(max));
    (0..steps).map(|i| at(i).powi(7)).chain([0.0]).collect()
}

/// DPM-Solver++(2M), algorithm 2, in a variance-preserving variable: `alpha^2 + s^2 = 1`, `lambda = log(alpha / s)`. The state holds
/// `u` and, below it, the `x_theta` before.
fn dpm_solver(scene: &Scene, levels: &[f64], stochastic: bool, extrapolation: f64) -> Recursion {
    let n = scene.n();
    let scales: Vec<(f64, f64)> = levels
        .iter()
        .map(|sigma| {
            let alpha = 1.0 / (1.0 + 4.0 * sigma * sigma).sqrt();
            (alpha, 2.0 * sigma * alpha)
        })
        .collect();
    let lambda = |i: usize| (scales[i].0 / scales[i].1).ln();
    let stack = |top: &DMatrix<f64>, bottom: &DMatrix<f64>| {
        let mut both = DMatrix::zeros(2 * n, top.ncols());
        both.view_mut((0, 0), (n, top.ncols())).copy_from(top);
        both.view_mut((n, 0), (n, top.ncols())).copy_from(bottom);
        both
    };
    let wide = |u: f64, before: f64| {
        let mut map = DMatrix::zeros(n, 2 * n);
        map.view_mut((0, 0), (n, n)).copy_from(&scene.eye(u));
        map.view_mut((0, n), (n, n)).copy_from(&scene.eye(before));
        map
    };
    let zeros = DMatrix::zeros(n, n);
    let first = Step { map: Affine::scaling(2 * n, 0.0), noise: vec![stack(&scene.eye(scales[0].1), &zeros)] };
    let steps = (0..levels.len() - 1).map(|i| {
        let ((alpha, s), (alpha_next, s_next)) = (scales[i], scales[i + 1]);
        let x = clean(scene, 2.0, alpha, s);
        let x = Affine::new(&x.f * wide(1.0, 0.0), x.g);
        let last = s_next == 0.0;
        let h = lambda(i + 1) - lambda(i);
        let d = match i {
            0 => x.clone(),
            _ if last => x.clone(),
            _ => {
                let r = (lambda(i) - lambda(i - 1)) / h;
                let half = extrapolation / (2.0 * r);
                let before = Affine::new(wide(0.0, 1.0), &x.g * 0.0);
                x.mix(1.0 + half, &before, -half)
            }
        };
        let u = Affine::new(wide(1.0, 0.0), &x.g * 0.0);
        let (map, noise) = if stochastic {
            let fresh = 1.0 - (-2.0 * h).exp();
            let map = u.mix(s_next / s * (-h).exp(), &d, alpha_next * fresh);
            (map, vec![stack(&scene.eye(s_next * fresh.sqrt()), &zeros)])
        } else {
            (u.mix(s_next / s, &d, -alpha_next * ((-h).exp() - 1.0)), vec![])
        };
        let g = nalgebra::DVector::from_iterator(2 * n, map.g.iter().chain(x.g.iter()).copied());
        Step { map: Affine::new(stack(&map.f, &x.f), g), noise }
    });
    let back = Step { map: Affine::scaling(2 * n, 0.5), noise: vec![] };
    Recursion { steps: std::iter::once(first).chain(steps).chain([back]).collect() }
}

/// `[S_churn, S_min, S_max, S_noise]`, on [-1, 1].
type Churn = [f64; 4];

/// Algorithm 2 of EDM on images of [-1, 1]; `second` is the weight of the correction, 1/2.
fn edm(scene: &Scene, levels: &[f64], [s_churn, s_min, s_max, s_noise]: Churn, second: f64) -> Recursion {
    let t: Vec<f64> = levels.iter().map(|sigma| 2.0 * sigma).collect();
    let count = t.len() - 1;
    let identity = Affine::scaling(scene.n(), 1.0);
    let slope = |at: f64| identity.mix(1.0 / at, &clean(scene, 2.0, 1.0, at), -1.0 / at);
    let steps = (0..count).map(|i| {
        let gamma = if (s_min..=s_max).contains(&t[i]) { (s_churn / count as f64).min(2f64.sqrt() - 1.0) } else { 0.0 };
        let hat = t[i] + gamma * t[i];
        let d = slope(hat);
        let euler = identity.mix(1.0, &d, t[i + 1] - hat);
        let map = if t[i + 1] == 0.0 {
            euler
        } else {
            let after = slope(t[i + 1]).after(&euler);
            identity.mix(1.0, &d.mix(1.0 - second, &after, second), t[i + 1] - hat)
        };
        // The churn comes first.
        let noise = &map.f * (hat * hat - t[i] * t[i]).max(0.0).sqrt() * s_noise;
        Step { map, noise: if s_churn > 0.0 { vec![noise] } else { vec![] } }
    });
    recursion(scene, 2.0, start(scene, t[0]), steps)
}

#[test]
fn images_follow_the_recursions_of_the_papers() {
    let levels = karras(60.0, 0.003, 15);
    let calm: Churn = [0.0, 0.0, f64::MAX, 1.0];
    let churn: Churn = [5.0, 0.1, 40.0, 1.01];
    for scene in Scene::all() {
        let ends = "steps=15,sigma=60,sigma_min=0.003";
        let cases: [(String, Recursion, Recursion); 5] = [
            (
                format!("dpm-solver++:{ends}"),
                dpm_solver(&scene, &levels, false, 1.0),
                dpm_solver(&scene, &levels, false, 0.95),
            ),
            (
                format!("dpm-solver++:{ends},form=sde"),
                dpm_solver(&scene, &levels, true, 1.0),
                dpm_solver(&scene, &levels, true, 0.95),
            ),
            (format!("edm:{ends}"), edm(&scene, &levels, calm, 0.5), edm(&scene, &levels, calm, 0.475)),
            (
                format!("edm:{ends},s_churn=5,s_min=0.05,s_max=20,s_noise=1.01"),
                edm(&scene, &levels, churn, 0.5),
                edm(&scene, &levels, [4.75, 0.1, 40.0, 1.01], 0.5),
            ),
            (
                format!("edm:{ends},s_churn=5,s_min=0.05,s_max=20,s_noise=1.01"),
                edm(&scene, &levels, churn, 0.5),
                edm(&scene, &levels, [5.0, 0.1, 40.0, 0.96], 0.5),
            ),
        ];
        for (spec, right, wrong) in cases {
            let images = draw(&scene.prior, &spec, 3);
            let (deviation, wrong) = (scene.deviation(&right, &images), scene.deviation(&wrong, &images));
            println!("{spec:<80} {deviation:.1e}, {wrong:.1e} with a coefficient 5 % off");
            assert!(deviation < 1e-5, "{spec}: {deviation:e}");
            assert!(wrong > 5e-4, "{spec}: a coefficient 5 % off deviates by {wrong:e} only");
        }
    }
}

/// The exact flow of the probability-flow ODE from level `max` to `min`, and the mean of the clean image there: per direction of variance
/// `v`, `x - mu` shrinks by `sqrt((v + min^2) / (v + max^2))`, then by `v / (v + min^2)`.
fn exact_flow(scene: &Scene, max: f64, min: f64) -> DMatrix<f64> {
    let SymmetricEigen { eigenvectors, eigenvalues } = SymmetricEigen::new(scene.sigma.clone());
    let gain = eigenvalues.map(|v| ((v + min * min) / (v + max * max)).sqrt() * v / (v + min * min));
    &eigenvectors * DMatrix::from_diagonal(&gain) * eigenvectors.transpose()
}

/// What a recursion makes of the first draw, `x = max z`.
fn map_of(scene: &Scene, recursion: &Recursion, max: f64) -> DMatrix<f64> {
    let n = scene.n();
    let unit = |i: usize| {
        let mut draws = std::iter::once(nalgebra::DVector::from_fn(n, |j, _| f64::from(u8::from(i == j))));
        recursion.run(&mut draws).rows(0, n).into_owned()
    };
    let origin = recursion.run(&mut std::iter::once(nalgebra::DVector::zeros(n))).rows(0, n).into_owned();
    DMatrix::from_columns(&(0..n).map(|i| (unit(i) - &origin) / max).collect::<Vec<_>>())
}

#[test]
fn heun_and_the_multistep_solver_are_of_second_order() {
    let scene = Scene::new(&Space::real(&[1, 4, 3]));
    let (max, min) = (20.0, 0.01);
    let exact = exact_flow(&scene, max, min);
    let error = |recursion: &Recursion| (map_of(&scene, recursion, max) - &exact).norm() / exact.norm();
    let calm: Churn = [0.0, 0.0, f64::MAX, 1.0];
    let heun = [40, 80, 160].map(|steps| error(&edm(&scene, &karras(max, min, steps), calm, 0.5)));
    let euler = [40, 80, 160].map(|steps| error(&edm(&scene, &karras(max, min, steps), calm, 0.0)));
    let multistep = [40, 80, 160].map(|steps| error(&dpm_solver(&scene, &karras(max, min, steps), false, 1.0)));
    for (name, errors, order) in [("heun", heun, 2), ("euler", euler, 1), ("multistep", multistep, 2)] {
        println!("{name}: error of the flow after 40, 80, 160 steps: {errors:.6?}");
        for pair in errors.windows(2) {
            let found = (pair[0] / pair[1]).log2();
            assert!((found - f64::from(order)).abs() < 0.35, "{name}: order {found}");
        }
    }
}

#[test]
fn the_stochastic_solvers_tend_to_the_prior() {
    let scene = Scene::new(&Space::real(&[1, 4, 3]));
    let distance = |of: &dyn Fn(&[f64]) -> Recursion| {
        [50, 100, 200].map(|steps| scene.distance(&of(&karras(80.0, 0.002, steps))).1)
    };
    let solver = distance(&|levels| dpm_solver(&scene, levels, true, 1.0));
    // The same noise per level, whatever their number.
    let churned = distance(&|levels| edm(&scene, levels, [0.1 * levels.len() as f64, 0.0, f64::MAX, 1.0], 0.5));
    println!("error of the covariance after 50, 100, 200 steps: sde {solver:.6?}, churn {churned:.6?}");
    for errors in [solver, churned] {
        assert!(errors[0] > 1.6 * errors[1] && errors[1] > 1.6 * errors[2] && errors[2] < 0.01, "{errors:?}");
    }
}
