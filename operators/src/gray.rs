//! Colour to grey: `y = (r + g + b) / 3`.

use crate::means::GroupMeans;
use crate::registry::Entry;
use crate::{DType, Error, ForwardOperator, Result, Space};

/// `y = (r + g + b) / 3`, the colourisation operator of DDNM (Wang et al., "Zero-shot image restoration using denoising diffusion
/// null-space model", ICLR 2023, section 3.2): equal weights, not a luma.
///
/// `[3, height, width]` to `[1, height, width]`; the pseudo-inverse repeats the grey level in the three channels.
///
/// # Errors
/// [`Error::Unsupported`] for images without exactly three channels.
pub fn gray(images: &Space) -> Result<Box<dyn ForwardOperator>> {
    let &[3, height, width] = images.shape() else {
        let channels = images.shape().first().copied().unwrap_or(0);
        let reason =
            format!("expected colour images of 3 channels, got {channels}; an image of one channel is grey already");
        return Err(Error::Unsupported { what: "gray".into(), reason });
    };
    let shape = [1, height, width];
    let range = if images.dtype() == DType::F32 { Space::real(&shape) } else { Space::complex(&shape) };
    let group = (0..images.len()).map(|i| i % (height * width)).collect();
    Ok(Box::new(GroupMeans::new("gray", images, range, group, Vec::new())))
}

pub(crate) const ENTRY: Entry = Entry {
    name: "gray",
    about: "colour images seen in grey: y = (r + g + b) / 3",
    reference: "Wang et al., Zero-shot image restoration using denoising diffusion null-space model, ICLR 2023",
    shorthand: None,
    parameters: &[],
    examples: &["gray"],
    build: |_, context| gray(&context.image),
};
