//! The prior named on the command line.

use std::path::Path;
use std::sync::Arc;

use operators::Space;
use recon::denoiser::{Denoiser, NetworkDenoiser};
use recon::network::Card;
use recon::report::sidecar::HashedFile;

/// A pixel that is this much larger or smaller than those of the training images is worth a warning.
const FAR: f64 = 1.5;

/// A network, loaded once for all inputs.
pub struct Prior {
    network: Arc<recon::network::Prior>,
    files: Vec<HashedFile>,
}

impl Prior {
    /// A bundled prior by its name, unless there is a folder of that name; else a diffusers directory.
    ///
    /// # Errors
    /// [`recon::Error::Model`] naming the path looked at, and for a plain name the bundled ones.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let bundled = datasets::PRIORS.iter().find(|prior| path == Path::new(prior.name));
        if let (Some(prior), false) = (bundled, path.is_dir()) {
            let mut network =
                recon::network::Prior::from_bytes(prior.name, prior.config, prior.scheduler, prior.weights)?;
            network.card.training_voxel_mm = Some(prior.voxel_mm);
            let files = vec![HashedFile::of_bytes("weights", format!("bundled {}", prior.name), prior.weights)];
            return Ok(Self { network: Arc::new(network), files });
        }
        if !path.exists() {
            let known: Vec<_> = datasets::PRIORS.iter().map(|prior| prior.name).collect();
            let reason = format!("no such folder, and no bundled prior of that name (bundled: {})", known.join(", "));
            return Err(recon::Error::Model { path: path.into(), reason }.into());
        }
        let network = recon::network::Prior::open(path)?;
        let sha256 = network.card.sha256.clone();
        let files = vec![HashedFile { role: "weights".into(), path: path.display().to_string(), bytes: 0, sha256 }];
        Ok(Self { network: Arc::new(network), files })
    }

    /// What is known of it.
    pub fn card(&self) -> &Card {
        &self.network.card
    }

    /// For the sidecar.
    pub fn files(&self) -> &[HashedFile] {
        &self.files
    }

    /// A warning where pixels of `(rows, columns)` mm are far from those it was trained on: anatomy then has another size.
    pub fn doubt(&self, (rows, columns): (f64, f64)) -> Option<String> {
        let card = self.card();
        let trained = card.training_voxel_mm?;
        let far = |size: f64, trained: f64| size.max(trained) > FAR * size.min(trained);
        (far(rows, trained.0) || far(columns, trained.1)).then(|| {
            format!(
                "pixels of {rows:.2} x {columns:.2} mm; the prior {} was trained on about {:.2} x {:.2} mm, so what it knows has \
                 another size here",
                card.name, trained.0, trained.1
            )
        })
    }

    /// The prior for images of this space.
    pub fn denoiser(&self, space: &Space) -> anyhow::Result<Box<dyn Denoiser>> {
        Ok(Box::new(NetworkDenoiser::new(self.network.clone(), space)?))
    }
}
