//! What the methods can do beyond linear operators, and what they say they cannot.

use operators::{Array, Error, ForwardOperator, Noise, Space};
use recon::samplers::{Problem, Run, Silent, build};

use crate::support::{gaussian_prior, operator, streams};

fn draw(operator: &dyn ForwardOperator, y: &Array, noise_std: f64, spec: &str) -> recon::Result<Array> {
    let prior = gaussian_prior(operator.domain());
    let mut run = Run { noise: &mut Noise::new(11, streams(y.batch())), observer: &mut Silent };
    build(&spec.parse().unwrap()).unwrap().sample(&Problem { operator, y, noise_std }, &prior, &mut run)
}

/// `y = min(max(2 x, 0), 1)`: a sensor that saturates.
#[derive(Debug)]
struct Saturated(Space);

impl ForwardOperator for Saturated {
    fn domain(&self) -> &Space {
        &self.0
    }
    fn range(&self) -> &Space {
        &self.0
    }
    fn apply(&self, x: &Array) -> operators::Result<Array> {
        x.scale(2.0).clamp(0.0, 1.0)
    }
    fn adjoint(&self, _y: &Array) -> operators::Result<Array> {
        Err(Error::Unsupported { what: "adjoint".into(), reason: "not linear".into() })
    }
    fn is_linear(&self) -> bool {
        false
    }
    fn vjp(&self, x: &Array, v: &Array) -> operators::Result<Array> {
        let lost = x.scale(2.0).sub(&self.apply(x)?)?.abs().scale(1e30).clamp(0.0, 1.0)?;
        v.sub(&v.mul(&lost)?).map(|kept| kept.scale(2.0))
    }
    fn norm(&self) -> operators::Result<f64> {
        Ok(2.0)
    }
}

/// Methods that need the derivative only explain a saturated measurement, unlike a draw from the prior.
#[test]
fn gradient_methods_explain_a_measurement_that_is_not_linear() {
    let operator = Saturated(Space::real(&[1, 8, 8]));
    let prior = gaussian_prior(&operator.0);
    let truth = Array::from_vec(&[1, 1, 8, 8], prior.mean().iter().map(|&v| (0.8 * v) as f32).collect()).unwrap();
    let y = operator.apply(&truth).unwrap().repeat(4).unwrap();
    let misfit = |x: &Array| y.sub(&operator.apply(x).unwrap()).unwrap().norm() / y.norm();
    let unguided = misfit(&draw(&operator, &y, 0.05, "dps:steps=100,zeta=0").unwrap());
    for spec in [
        "dps:steps=100,zeta=0.3",
        "dps:steps=100,form=annealed",
        "lgd:steps=100,zeta=0.3,samples=4",
        "red-diff:steps=300,lr=0.02",
    ] {
        let misfit = misfit(&draw(&operator, &y, 0.05, spec).unwrap());
        println!("{spec}: misfit {misfit:.3}, of the prior {unguided:.3}");
        assert!(misfit < 0.5 * unguided, "{spec}: misfit {misfit}, of the prior {unguided}");
    }
    for spec in ["mcg:steps=3", "pigdm:steps=3", "score-sde:steps=3", "repaint:steps=3", "ilvr:steps=3", "ddrm:steps=3"]
    {
        let error = draw(&operator, &y, 0.05, spec).unwrap_err().to_string();
        assert!(error.contains("not linear") || error.contains("singular value"), "{spec}: {error}");
    }
}

#[test]
fn what_a_method_cannot_do_is_an_error_that_says_what_can() {
    for (name, noise_std, spec, hint) in [
        ("mri:accel=2,image=complex", 0.05, "dps:steps=3,clip=true", "complex"),
        ("mri:accel=2", 0.05, "dps:steps=3,variance=learned", "variance=posterior"),
        ("mri:accel=2", 0.0, "dps:steps=3,form=likelihood", "form=annealed"),
        ("mri:accel=2", 0.0, "lgd:steps=3,form=exp", "form=root"),
        ("blur-motion:length=5,angle=30,boundary=reflect", 0.05, "ddrm:steps=3", "use projection, diffpir or dps"),
    ] {
        let operator = operator(name);
        let y = operator.apply(&Noise::new(3, streams(2)).normal(operator.domain()).unwrap()).unwrap();
        let error = draw(&*operator, &y, noise_std, spec).unwrap_err().to_string();
        assert!(error.contains(hint), "{name}, {spec}: {error}");
    }
    for (spec, hint) in [
        ("mcg:repeats=0", "at least 1"),
        ("repaint:jump_length=0", "at least 1"),
        ("lgd:samples=0", "at least 1"),
        ("red-diff:weight=cubic", "power2over3"),
        ("red-diff:lr=0", "lr"),
        ("ddrm:eta_b=1.5", "eta_b"),
        ("ilvr:range_t=1001", "range_t"),
        ("score-sde:predictor=euler", "reverse-diffusion"),
        ("dps:form=exact", "annealed"),
    ] {
        let error = build(&spec.parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains(hint), "{spec}: {error}");
    }
}
