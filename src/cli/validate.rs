//! `recon validate`: which methods draw from the posterior, where the posterior is known.

use std::fmt::Write as _;
use std::ops::ControlFlow;

use operators::{Context, Spec};
use recon::io::write_atomic;
use recon::report::table::{number, table};
use recon::samplers::{self, Observer, Progress, SAMPLERS};
use recon::validation::{Band, Case, Judge, Scores, TOY_SEED, Verdict, toy};

use super::args::Validate;
use super::exit::Usage;
use super::progress::interrupted;

/// Noise of the published toy, on [-1, 1].
const TOY_NOISE: [f64; 2] = [0.2, 0.5];
/// Noise behind `--op`, in data units.
const IMAGE_NOISE: f64 = 0.05;
/// Decimals of the scores.
const DIGITS: usize = 3;

/// What one method did with one case.
struct Row {
    spec: String,
    evaluations: (usize, usize),
    outcome: Result<(Scores, Verdict), String>,
}

/// Every case, every method.
pub fn run(args: &Validate) -> anyhow::Result<()> {
    if let Some(noise) = args.noise.iter().find(|noise| !(**noise > 0.0 && noise.is_finite())) {
        return Err(Usage(format!("--noise: expected a positive number, got {noise}")).into());
    }
    if let Some(path) = args.json.as_deref().filter(|path| path.exists() && !args.force) {
        return Err(Usage(format!("{}: exists already; --force overwrites it", path.display())).into());
    }
    let specs = match args.sampler.as_slice() {
        [] => all_with_a_prior()?,
        given => given.to_vec(),
    };
    for spec in &specs {
        let sampler = samplers::build(spec)?;
        if sampler.is_conditional() {
            return Err(Usage(format!(
                "--sampler {spec}: needs a prior with a condition, and the priors here have none"
            ))
            .into());
        }
        let (denoise, vjp) = sampler.evaluations();
        if denoise + vjp == 0 {
            return Err(Usage(format!("--sampler {spec}: does not use a prior, so it has no posterior")).into());
        }
    }
    let mut records = Vec::new();
    for (name, case) in cases(args)? {
        let judge = Judge::new(&case, args.samples)?;
        let mut rows = Vec::new();
        for spec in &specs {
            if !args.quiet {
                super::note(&format!("{name}: {spec}"));
            }
            rows.push(row(&case, &judge, spec, args)?);
        }
        super::print(&describe(&name, &case, &judge, &rows, args.samples))?;
        records.push(record(&name, &case, &judge, &rows, args.samples));
    }
    if let Some(path) = &args.json {
        let json = serde_json::json!({ "version": env!("CARGO_PKG_VERSION"), "seed": args.seed, "cases": records });
        let text = serde_json::to_string_pretty(&json)? + "\n";
        write_atomic(path, args.force, |w| w.write_all(text.as_bytes()))?;
    }
    Ok(())
}

fn all_with_a_prior() -> anyhow::Result<Vec<Spec>> {
    let mut specs = Vec::new();
    for entry in SAMPLERS {
        let spec: Spec = entry.name.parse()?;
        // A method with a parameter that must be given has no defaults to be judged by.
        if entry.parameters.iter().all(|parameter| !parameter.default.is_empty()) {
            let sampler = samplers::build(&spec)?;
            let (denoise, vjp) = sampler.evaluations();
            // The cases have unconditional priors.
            specs.extend((denoise + vjp > 0 && !sampler.is_conditional()).then_some(spec));
        }
    }
    Ok(specs)
}

fn cases(args: &Validate) -> anyhow::Result<Vec<(String, Case)>> {
    let mut cases = Vec::new();
    match &args.op {
        None => {
            let noise = if args.noise.is_empty() { &TOY_NOISE[..] } else { &args.noise };
            for &noise in noise {
                let case = toy(noise, TOY_SEED)?;
                let components = case.posterior().effective_components();
                let words = "mixture of 25 Gaussians, 14 of 16 directions measured";
                let name = format!("{words}, noise {noise} on [-1, 1]: {components:.1} modes remain");
                cases.push((name, case));
            }
        }
        Some(op) => {
            let noise = if args.noise.is_empty() { &[IMAGE_NOISE][..] } else { &args.noise };
            for &noise in noise {
                let operator = operators::build(op, &Context::new(args.channels, args.size, args.size))?;
                let images = operator.domain().to_string();
                let name = format!("Gaussian images of {images} behind {op}, noise {noise} in data units");
                cases.push((name, Case::gaussian(operator, noise, args.seed)?));
            }
        }
    }
    Ok(cases)
}

/// Stops at the next step after Ctrl-C.
struct Watch;

impl Observer for Watch {
    fn step(&mut self, _at: &Progress<'_>) -> ControlFlow<()> {
        if interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

fn row(case: &Case, judge: &Judge<'_>, spec: &Spec, args: &Validate) -> anyhow::Result<Row> {
    let sampler = samplers::build(spec)?;
    let scored = case
        .samples(sampler.as_ref(), args.samples, args.seed, &mut Watch)
        .and_then(|samples| judge.scores(&samples))
        .map(|scores| (scores, judge.verdict(&scores)));
    let outcome = match scored {
        Err(recon::Error::Interrupted) => return Err(recon::Error::Interrupted.into()),
        other => other.map_err(|error| error.to_string()),
    };
    Ok(Row { spec: spec.to_string(), evaluations: sampler.evaluations(), outcome })
}

fn describe(name: &str, case: &Case, judge: &Judge<'_>, rows: &[Row], samples: usize) -> String {
    let header = ["sampler", "evaluations", "mean", "covariance", "variance", "energy", "SW", "KSD", "verdict"];
    let numbers =
        |of: &dyn Fn(&Band) -> f64| judge.bands().iter().map(|b| number(Some(of(b)), DIGITS)).collect::<Vec<_>>();
    let mut lines = vec![
        [vec!["(exact draws)".into(), "-".into()], numbers(&|b| b.expected)].concat(),
        [vec!["(band)".into(), "-".into()], numbers(&|b| b.width)].concat(),
    ];
    for Row { spec, evaluations: (denoise, vjp), outcome } in rows {
        let evaluations = if *vjp > 0 { format!("{denoise} + {vjp}") } else { denoise.to_string() };
        let mut line = vec![spec.clone(), evaluations];
        match outcome {
            Ok((scores, verdict)) => {
                line.extend(scores.named().map(|(_, value)| number(Some(value), DIGITS)));
                line.push(verdict.to_string());
            }
            Err(reason) => {
                line.extend(std::iter::repeat_n("n/a".to_string(), Scores::default().named().len()));
                line.push(reason.clone());
            }
        }
        lines.push(line);
    }
    let names = |exact: bool| {
        let chosen = rows.iter().filter(|row| matches!(&row.outcome, Ok((_, verdict)) if verdict.is_exact() == exact));
        let names: Vec<_> = chosen.map(|row| row.spec.as_str()).collect();
        if names.is_empty() { "none".into() } else { names.join(", ") }
    };
    let mut text = format!("{name}\n{}", table(&header, &lines));
    let _ = writeln!(
        text,
        "{samples} samples, noise {} in data units, KSD bandwidth {:.3}. mean: error in standard deviations of the posterior; covariance: \
         relative error;\nvariance: over the posterior's; energy: mean of -log p(x | y) per dimension; SW: sliced Wasserstein distance; exact: \
         nothing outside the band\nexact: {}\nbiased: {}\n",
        case.noise_std(),
        judge.bandwidth(),
        names(true),
        names(false)
    );
    text
}

fn record(name: &str, case: &Case, judge: &Judge<'_>, rows: &[Row], samples: usize) -> serde_json::Value {
    let bands: serde_json::Map<_, _> = Scores::default()
        .named()
        .into_iter()
        .zip(judge.bands())
        .map(|((name, _), band)| (name.to_string(), serde_json::json!(band)))
        .collect();
    let methods = rows.iter().map(|Row { spec, evaluations, outcome }| {
        let mut record = serde_json::json!({ "sampler": spec, "denoise": evaluations.0, "vjp": evaluations.1 });
        match outcome {
            Ok((scores, verdict)) => {
                record["scores"] = serde_json::json!(scores);
                record["verdict"] = serde_json::json!(verdict);
                record["exact"] = verdict.is_exact().into();
            }
            Err(reason) => record["error"] = reason.as_str().into(),
        }
        record
    });
    serde_json::json!({
        "case": name,
        "noise_std": case.noise_std(),
        "samples": samples,
        "effective_components": case.posterior().effective_components(),
        "kernel": { "name": "inverse multiquadric, exponent -1/2", "bandwidth": judge.bandwidth() },
        "exact_draws": bands,
        "methods": methods.collect::<Vec<_>>(),
    })
}
