//! `recon ops`, `recon samplers`.

use std::fmt::Write;

use operators::spec::{Entry as _, Parameter};

/// The operators of the registry.
pub fn operators() -> String {
    let mut text = String::new();
    for entry in operators::OPERATORS {
        let short = entry.shorthand().map(|_| format!(" ({}-4x)", entry.name)).unwrap_or_default();
        describe(&mut text, &format!("{}{short}", entry.name), entry.about, entry.reference, entry.parameters);
    }
    text
}

/// The samplers of the registry, and the methods of generation.
pub fn samplers() -> String {
    let mut text = String::from("With a measurement (recon --sampler SPEC):\n\n");
    for entry in recon::samplers::SAMPLERS {
        describe(&mut text, entry.name, entry.about, entry.reference, entry.parameters);
    }
    text.push_str("From the prior alone (recon sample --method SPEC, recon edit --method SPEC):\n\n");
    for entry in recon::generators::GENERATORS {
        describe(&mut text, entry.name, entry.about, entry.reference, entry.parameters);
    }
    text
}

fn describe(text: &mut String, name: &str, about: &str, reference: &str, parameters: &[Parameter]) {
    let _ = writeln!(text, "{name}\n    {about}");
    for parameter in parameters {
        let default = match parameter.default {
            "" => "required".to_string(),
            default => format!("default {default}"),
        };
        let _ = writeln!(text, "      {:<12} {} [{default}]", parameter.name, parameter.about);
    }
    if !reference.is_empty() {
        let _ = writeln!(text, "    {reference}");
    }
    text.push('\n');
}
