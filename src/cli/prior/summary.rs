//! What `recon prior info` says.

use super::Prior;

impl Prior {
    /// What is known of it, a line each; of a cascade, stage by stage.
    pub fn summary(&self) -> Vec<(&'static str, String)> {
        if let [only] = &self.stages[..] {
            return of(only);
        }
        let whole = self.condition().map_or(String::new(), |condition| format!(", shown {condition}"));
        let mut lines = vec![
            ("layout", format!("a cascade of {} stages{whole}", self.stages.len())),
            ("parameters", self.card().parameters.to_string()),
        ];
        for (i, stage) in self.stages.iter().enumerate() {
            lines.push(("stage", format!("{} of {}: {}", i + 1, self.stages.len(), stage.card.name)));
            lines.extend(of(stage));
        }
        lines
    }
}

/// Of one network.
fn of(prior: &recon::network::Prior) -> Vec<(&'static str, String)> {
    let recon::network::Prior { network, schedule, range, classes, condition, card } = prior;
    let (graph, (low, high)) = (network.graph(), *range);
    let (images, outputs) = (prior.image_channels(), graph.output_channels());
    let learned = if outputs == 2 * images { ", and as many for a learned variance" } else { "" };
    let kind = if images == 2 { " (real and imaginary part: complex images)" } else { "" };
    let size = |(rows, columns): (usize, usize)| format!("{rows} x {columns}");
    let (least, most) = schedule.sigma_range();
    let levels = format!("{:.4} to {:.4} in data units", least / (high - low), most / (high - low));
    let mut lines = vec![
        ("layout", card.layout.clone()),
        ("parameters", card.parameters.to_string()),
        ("channels", format!("{images}{kind}{learned}")),
        ("range", format!("{low} to {high} for data units 0 to 1")),
        ("predicts", format!("{:?}", schedule.prediction)),
        ("sigma", levels),
        ("trained on", card.training_size.map_or("images of a size that is not stated".into(), size)),
        ("sides", format!("multiples of {}; others are padded", graph.multiple())),
        ("sha256", card.sha256.clone()),
    ];
    if let Some(condition) = condition {
        let dropped = match condition.dropout {
            0.0 => "never dropped in training, so without guidance".into(),
            dropout => format!("dropped {} % of the time, so that it can be guided", 100.0 * dropout),
        };
        let augmented = match condition.augmentation {
            0.0 => String::new(),
            level => format!(", with noise of {level} in data units added"),
        };
        let noisy = match condition.noise {
            0.0 => String::new(),
            most => format!(", of measurements with noise up to {most}"),
        };
        lines.push(("condition", format!("{condition}{augmented}{noisy}; {dropped}")));
    }
    if let Some(classes) = classes {
        let chosen = match (classes.chosen(), classes.has_none()) {
            (Some(class), _) => format!("class {class} is bound"),
            (None, true) => "none is bound".into(),
            (None, false) => "none is bound, one is needed: --class N".into(),
        };
        lines.push(("classes", format!("{}; {chosen}", classes.count())));
    }
    lines.extend(card.notes.iter().map(|note| ("note", note.clone())));
    lines
}
