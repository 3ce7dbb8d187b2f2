//! Methods that are affine recursions. As `posterior.rs`: the recursions (`support/methods/guided.rs`) are written from the papers in dense f64 matrices, samples must
//! follow them draw by draw to rounding, and in mean and covariance within Monte-Carlo error. The distance to the true posterior is
//! printed (`cargo test --release --test guided -- --nocapture`), not judged.

use crate::support::affine::Recursion;
use crate::support::methods::guided;
use crate::support::statistics::Scores;
use crate::support::{Setting, linear_operators, operator};

/// `steps` times from 1000 down, one stride short of 0.
fn trailing(steps: usize) -> Vec<usize> {
    (0..steps).map(|i| 1000 - i * 1000 / steps).collect()
}

/// Visits of 10 levels, stretches of 3 done twice: the times left at the jumps are 0, 3 and 6.
const VISITS: [(usize, usize); 19] = [
    (0, 1),
    (1, 2),
    (2, 3),
    (3, 0),
    (0, 1),
    (1, 2),
    (2, 3),
    (3, 4),
    (4, 5),
    (5, 6),
    (6, 3),
    (3, 4),
    (4, 5),
    (5, 6),
    (6, 7),
    (7, 8),
    (8, 9),
    (9, 6),
    (6, 7),
];
const LAST_VISITS: [(usize, usize); 3] = [(7, 8), (8, 9), (9, 10)];

fn visits() -> Vec<(usize, usize)> {
    VISITS.iter().chain(&LAST_VISITS).copied().collect()
}

/// A coefficient, and the recursion in which it is multiplied by a factor.
type Mutation = (&'static str, fn(&Setting, f64) -> Recursion);

/// One method: its specification, the recursion that the paper makes of it, and wrong ones.
struct Case {
    spec: &'static str,
    recursion: fn(&Setting) -> Recursion,
    mutations: &'static [Mutation],
    needs: Needs,
}

#[derive(PartialEq)]
enum Needs {
    /// A pseudo-inverse that is a linear map to rounding.
    Inverse,
    /// The decomposition with noise, an inverse without.
    Decomposition,
    /// Nothing with noise, an inverse without.
    Little,
}

const CASES: [Case; 8] = [
    Case {
        spec: "score-sde:steps=20,spacing=trailing,corrector=0,predictor=ancestral",
        recursion: |s| guided::score_sde_ancestral(s, &trailing(20)),
        mutations: &[("first level", |s, by| guided::score_sde_ancestral(s, &first(by)))],
        needs: Needs::Inverse,
    },
    Case {
        spec: "score-sde:steps=20,spacing=trailing,corrector=0",
        recursion: |s| guided::score_sde_reverse_diffusion(s, &trailing(20)),
        mutations: &[("first level", |s, by| guided::score_sde_reverse_diffusion(s, &first(by)))],
        needs: Needs::Inverse,
    },
    Case {
        spec: "ilvr:steps=20,spacing=trailing,range_t=200",
        recursion: |s| guided::ilvr(s, &trailing(20), 200),
        mutations: &[("range_t", |s, by| guided::ilvr(s, &trailing(20), (200.0 * by) as usize))],
        needs: Needs::Inverse,
    },
    Case {
        spec: "repaint:steps=10,spacing=trailing,jump_length=3,resamples=2",
        recursion: |s| guided::repaint(s, &trailing(10), &visits()),
        mutations: &[],
        needs: Needs::Inverse,
    },
    Case {
        spec: "ddrm:steps=20,spacing=trailing,eta=0.85,eta_b=0.9",
        recursion: |s| guided::ddrm(s, &trailing(20), 0.85, 0.9),
        mutations: &[
            ("eta", |s, by| guided::ddrm(s, &trailing(20), 0.85 * by, 0.9)),
            ("eta_b", |s, by| guided::ddrm(s, &trailing(20), 0.85, 0.9 * by)),
            ("sigma_y", |s, by| guided::ddrm(&noisier(s, by), &trailing(20), 0.85, 0.9)),
        ],
        needs: Needs::Decomposition,
    },
    Case {
        spec: "pigdm:steps=20,spacing=trailing",
        recursion: |s| guided::pigdm(s, &trailing(20), 1.0, 1.0),
        mutations: &[
            ("weight", |s, by| guided::pigdm(s, &trailing(20), 1.0, by)),
            ("sigma_y", |s, by| guided::pigdm(&noisier(s, by), &trailing(20), 1.0, 1.0)),
        ],
        needs: Needs::Little,
    },
    Case {
        spec: "pigdm:steps=20,spacing=trailing,eta=0.2,weight=0.8",
        recursion: |s| guided::pigdm(s, &trailing(20), 0.2, 0.8),
        mutations: &[("eta", |s, by| guided::pigdm(s, &trailing(20), 0.2 * by, 0.8))],
        needs: Needs::Little,
    },
    Case {
        spec: "dps:form=annealed,steps=25,spacing=trailing",
        recursion: |s| guided::dps_annealed(s, &trailing(25), 1.0),
        mutations: &[
            ("zeta", |s, by| guided::dps_annealed(s, &trailing(25), by)),
            ("sigma_y", |s, by| guided::dps_annealed(&noisier(s, by), &trailing(25), 1.0)),
        ],
        needs: Needs::Little,
    },
];

/// Times whose first is wrong.
fn first(by: f64) -> Vec<usize> {
    let mut times = trailing(20);
    times[0] = (times[0] as f64 * by).max(times[1] as f64 + 1.0) as usize;
    times
}

/// The same measurement under another belief of its noise.
fn noisier(setting: &Setting, by: f64) -> Setting {
    Setting { sigma_y: setting.sigma_y * by, ..Setting::new(&setting.name, operator(&setting.name), setting.sigma_y) }
}

fn applies(case: &Case, setting: &Setting) -> bool {
    match case.needs {
        Needs::Inverse => setting.inverts(),
        Needs::Decomposition => setting.decomposes() || (setting.inverts() && setting.sigma_y == 0.0),
        Needs::Little => setting.sigma_y > 0.0 || setting.inverts(),
    }
}

#[test]
fn samples_follow_the_recursions_of_the_papers_for_every_linear_operator() {
    println!("distance to the true posterior, noise 0.3: mean (standard deviations), covariance (relative)");
    for sigma_y in [0.0, 0.3] {
        for (name, operator) in linear_operators() {
            let setting = Setting::new(name, operator, sigma_y);
            for case in CASES.iter().filter(|case| applies(case, &setting)) {
                let recursion = (case.recursion)(&setting);
                let samples = setting.draw(case.spec, 200);
                let deviation = setting.follow(&recursion, &samples);
                assert!(deviation < 1.0, "{name}, noise {sigma_y}, {}: {deviation} times the rounding", case.spec);
                let (mean, covariance) = recursion.moments();
                let scores = Scores::new(&samples, &mean, &covariance);
                assert!(scores.pass(setting.rounding(&mean)), "{name}, noise {sigma_y}, {}: {scores:?}", case.spec);
                if sigma_y > 0.0 {
                    let (bias, spread) = setting.distance(&recursion);
                    println!("{name:<50} {:<60} {bias:>8.3} {spread:>7.3}", case.spec);
                }
            }
        }
    }
}

/// The proofs above can fail: a coefficient 5 % off shows in the draws.
#[test]
fn a_wrong_coefficient_fails() {
    let name = "mri:accel=4";
    let setting = Setting::new(name, operator(name), 0.3);
    for Case { spec, recursion, mutations, .. } in &CASES {
        let samples = setting.draw(spec, 3);
        let right = setting.follow(&recursion(&setting), &samples);
        assert!(right < 1.0, "{spec}: {right} times the rounding");
        for (coefficient, mutated) in *mutations {
            let deviation = setting.follow(&mutated(&setting, 0.95), &samples);
            println!("{spec}: {coefficient} 5 % off: {deviation:.0} roundings");
            assert!(deviation > 20.0, "{spec}: {coefficient} 5 % off deviates by {deviation} roundings only");
        }
    }
}
