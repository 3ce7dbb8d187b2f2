//! The prior named on the command line.

use std::path::Path;
use std::sync::Arc;

use operators::Space;
use recon::denoiser::{Denoiser, NetworkDenoiser};
use recon::network::Card;
use recon::report::sidecar::HashedFile;

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
            let network = recon::network::Prior::from_bytes(prior.name, prior.config, prior.scheduler, prior.weights)?;
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

    /// The prior for images of this space.
    pub fn denoiser(&self, space: &Space) -> anyhow::Result<Box<dyn Denoiser>> {
        Ok(Box::new(NetworkDenoiser::new(self.network.clone(), space)?))
    }
}
