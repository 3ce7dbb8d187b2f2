//! The one list of operators.

use crate::spec::{self, Parameter};
use crate::{
    Device, ForwardOperator, Result, Space, Spec, blur, denoise, downsample, gray, hdr, mask, mri, phase_retrieval,
};

/// One operator of the registry: `recon ops` prints it, `--op` builds it, the contract tests run on its examples.
#[derive(Debug)]
pub struct Entry {
    /// The name in a specification.
    pub name: &'static str,
    /// One line for the help.
    pub about: &'static str,
    /// Where it is defined.
    pub reference: &'static str,
    /// The parameter that the `4` of `name-4x` sets.
    pub shorthand: Option<&'static str>,
    /// Its parameters.
    pub parameters: &'static [Parameter],
    /// Specifications that work on any image of at least 8x8 whose sizes are divisible by 4 (or on any size, where the
    /// operator allows it): the contract tests run over them.
    pub examples: &'static [&'static str],
    /// Builds it.
    pub build: fn(&Spec, &Context) -> Result<Box<dyn ForwardOperator>>,
}

impl spec::Entry for Entry {
    fn name(&self) -> &'static str {
        self.name
    }
    fn shorthand(&self) -> Option<&'static str> {
        self.shorthand
    }
    fn parameters(&self) -> &'static [Parameter] {
        self.parameters
    }
}

/// What an operator is built for.
#[derive(Clone, Debug)]
pub struct Context {
    /// The images: `[channels, height, width]`, real unless the data are complex. An operator may choose a complex domain of
    /// the same shape (`mri:image=complex`).
    pub image: Space,
    /// Name of the measured file, for masks seeded by it (`mri:seed=file`).
    pub file_name: Option<String>,
    /// Where it will run.
    pub device: Device,
}

impl Context {
    /// Real images `[channels, height, width]` on the CPU.
    pub fn new(channels: usize, height: usize, width: usize) -> Self {
        Self { image: Space::real(&[channels, height, width]), file_name: None, device: Device::Cpu }
    }
}

/// All operators, in the order of the help.
pub const OPERATORS: &[Entry] = &[
    mri::ENTRY,
    mask::BOX,
    mask::RANDOM,
    mask::FILE,
    blur::GAUSSIAN,
    blur::MOTION,
    blur::FILE,
    downsample::BICUBIC,
    downsample::MEAN,
    gray::ENTRY,
    denoise::ENTRY,
    phase_retrieval::ENTRY,
    hdr::ENTRY,
];

/// The operator that `spec` (`mri-4x`, `blur-gaussian:sigma=3`, ...) names, for the images of `context`.
///
/// # Errors
/// [`crate::Error::Unknown`] for a name or parameter that is not known, [`crate::Error::Parameter`] for a value that cannot be
/// used, [`crate::Error::File`] for a file that cannot.
pub fn build(spec: &Spec, context: &Context) -> Result<Box<dyn ForwardOperator>> {
    let (entry, spec) = spec.resolve("operator", OPERATORS)?;
    (entry.build)(&spec, context)
}
