//! The model card.

use std::fmt::Write;
use std::time::Duration;

use recon::conditions::Kind;
use recon::train::Validation;

use super::{Plan, settings, trial};

/// `README.md` of a model directory: data, licences, settings, validation, the command.
pub(super) fn text(plan: &Plan<'_>, (done, took): (u64, Option<Duration>), last: Option<&(u64, Validation)>) -> String {
    let Plan { args, data, network, objective, .. } = plan;
    let name = args.output.file_name().map_or("model".into(), |name| name.to_string_lossy().into_owned());
    let [channels, rows, columns] = data.shape();
    let mut card = String::new();
    let mut say = |text: String| writeln!(card, "{text}").expect("a string takes everything");
    say(format!("# {name}\n"));
    let kind = if args.images.complex { "complex images as real and imaginary part" } else { "real images" };
    let (low, high) = settings::range(args);
    say(format!(
        "A diffusion prior trained by `recon train` {}: a `UNet2DModel` of {:.2} million numbers, {channels} x {rows} x {columns}, \
         {kind}; 0 and 1 of data units (1 is the 99.5th percentile of a volume) are {low} and {high} for the network. The weights \
         are the moving average.\n",
        env!("CARGO_PKG_VERSION"),
        network.parameters() as f64 / 1e6
    ));
    say("## Data\n".into());
    say("| source | slices | people | kept for validation | licence |\n|---|---|---|---|---|".into());
    for group in data.groups() {
        let licences: Vec<&str> = match args.licence.is_empty() {
            true => group.licences.iter().map(String::as_str).collect(),
            false => args.licence.iter().map(String::as_str).collect(),
        };
        let licences = if licences.is_empty() { "not stated".into() } else { licences.join("; ") };
        let (slices, people) = (group.slices, group.people);
        say(format!(
            "| {} | {} | {} | {} slices of {} | {licences} |",
            group.name,
            slices.0,
            people.0,
            slices.1,
            super::counted(people.1)
        ));
    }
    say(String::new());
    data.notes().iter().for_each(|note| say(format!("- {note}")));
    if args.images.reduce > 1 {
        say(format!(
            "- slices were made {} times smaller by bicubic interpolation with antialiasing",
            args.images.reduce
        ));
    }
    if !args.images.exclude.is_empty() {
        say(format!("- left out: {}", args.images.exclude.join(", ")));
    }
    super::repeated(data).iter().for_each(|line| say(format!("- {line}")));
    if !data.labels().is_empty() {
        let labels: Vec<String> = data.labels().iter().enumerate().map(|(i, label)| format!("{i} {label}")).collect();
        say(format!("- classes: {}", labels.join(", ")));
    }
    say(format!("- SHA-256 of the slices: {}\n", data.hash()));
    say("## Training\n".into());
    let optimiser = &args.optimiser;
    let took = took.map_or(String::new(), |took| format!(" ({} in the last run)", trial::duration(took.as_secs_f64())));
    say(format!(
        "- {done} of {} steps of {} images on {}{took}; seed {}",
        optimiser.steps, optimiser.batch, plan.device, args.seed
    ));
    say(format!(
        "- AdamW, learning rate {}, weight decay {}, clipping {}, moving average {}",
        optimiser.learning_rate, optimiser.weight_decay, optimiser.clip, optimiser.ema
    ));
    say(format!("- prediction {:?}, {:?}, {:?}", objective.schedule.prediction, objective.law, objective.weighting));
    if let Some(condition) = &settings::model(args, data).condition {
        let noise = match condition.augmentation {
            0.0 => String::new(),
            level => format!(", with noise of standard deviation {level} in data units added"),
        };
        let measured = match condition.noise {
            0.0 => String::new(),
            most => format!(" of measurements with noise of standard deviation 0 to {most} (data units)"),
        };
        say(format!(
            "- conditioned on {condition}{measured}{noise}, left out for {} of the images",
            args.objective.dropout
        ));
        say(match &condition.kind {
            Kind::LowResolution { factor } => format!(
                "- for `recon --sampler sr3 --op sr-{factor}x --prior {name}`; also a stage of a cascade, a directory with a `recon.json` \
                 {{\"stages\": [...]}} that names it, where the image of the stage before is what it is shown"
            ),
            Kind::FirstLook { operator } => {
                format!("- for `recon --sampler conditional --op {operator} --prior {name}`")
            }
        });
    }
    say(format!("- {:?}\n", settings::augmentation(args)));
    if let Some((step, validation)) = last {
        say("## Validation\n".into());
        say(format!(
            "After step {step}, on {} slices of people who were not trained on, by quarter of the noise levels from the weakest on:\n",
            validation.images
        ));
        say("| | 1 | 2 | 3 | 4 | mean |\n|---|---|---|---|---|---|".into());
        for (name, values) in [("loss", &validation.loss), ("squared error of the noise", &validation.noise_error)] {
            let four: Vec<String> = values.iter().map(|v| format!("{v:.5}")).collect();
            say(format!("| {name} | {} | {:.5} |", four.join(" | "), values.iter().sum::<f64>() / 4.0));
        }
        say(String::new());
    }
    say("## Command\n".into());
    let command: Vec<String> = std::env::args().skip(1).map(|argument| quoted(&argument)).collect();
    say(format!("```\nrecon {}\n```\n", command.join(" ")));
    say("Research use only; not for diagnostic use.".into());
    card
}

/// As a shell takes it.
fn quoted(argument: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=./,:+@%".contains(c);
    match !argument.is_empty() && argument.chars().all(is_plain) {
        true => argument.into(),
        false => format!("'{}'", argument.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn commands_can_be_typed_again() {
        let said = ["--size=64", "sub-05*", "it's", ""].map(quoted);
        assert_eq!(said, ["--size=64", "'sub-05*'", r"'it'\''s'", "''"]);
    }
}
