//! What ships with `recon`: phantoms, a scan, priors and the LPIPS weights.
//!
//! Everything is inside the library, so a program built on it needs no file beside it and no network. Licences stand beside the
//! data in `datasets/data`.

use ndarray::Array2;

/// A score model as a diffusers directory holds it.
#[derive(Clone, Copy, Debug)]
pub struct Prior {
    /// The name it is asked for by.
    pub name: &'static str,
    /// `config.json` of the network.
    pub config: &'static str,
    /// `scheduler_config.json` of its noise schedule.
    pub scheduler: &'static str,
    /// The weights, safetensors.
    pub weights: &'static [u8],
    /// Pixel size of its training images in mm (rows, columns), about.
    pub voxel_mm: (f64, f64),
    /// `recon.json`, of a network that has one: its condition, its range.
    pub settings: Option<&'static str>,
    /// What it was trained on, with which settings, under which licences.
    pub card: &'static str,
}

/// The prior in a folder of `datasets/data`.
macro_rules! prior {
    ($name:literal, $settings:expr) => {
        Prior {
            name: $name,
            config: include_str!(concat!("../data/", $name, "/config.json")),
            scheduler: include_str!(concat!("../data/", $name, "/scheduler_config.json")),
            weights: include_bytes!(concat!("../data/", $name, "/diffusion_pytorch_model.safetensors")),
            voxel_mm: (0.85, 0.85),
            settings: $settings,
            card: include_str!(concat!("../data/", $name, "/README.md")),
        }
    };
}

/// The default on a processor: brain MR slices, one real channel, 256x256, 4.7 million parameters, trained by `recon train` as all of
/// them.
pub static BRAIN_MR: Prior = prior!("brain-mr", None);

/// The default on a GPU: the same images, 8.0 million parameters in layers that are twice as wide.
pub static BRAIN_MR_LARGE: Prior = prior!("brain-mr-large", None);

/// Complex images: real and imaginary part as two channels, smooth phases.
pub static BRAIN_MR_COMPLEX: Prior =
    prior!("brain-mr-complex", Some(include_str!("../data/brain-mr-complex/recon.json")));

/// Conditional super-resolution (SR3): shown the bicubic interpolation of images four times smaller, with noise of up to 0.05.
pub static BRAIN_SR4: Prior = prior!("brain-sr4", Some(include_str!("../data/brain-sr4/recon.json")));

/// All bundled priors.
pub static PRIORS: &[&Prior] = &[&BRAIN_MR, &BRAIN_MR_LARGE, &BRAIN_MR_COMPLEX, &BRAIN_SR4];

/// LPIPS v0.1: the AlexNet features and the linear heads of Zhang et al. (2018), safetensors.
pub static LPIPS_ALEX: &[u8] = include_bytes!("../data/lpips_alex.safetensors");

/// A T1-weighted head, 181x215x24 voxels of 1 mm, `.nii.gz`: a slab of Colin27 (Holmes et al. 1998), an average of 27 scans of
/// one person, so less noisy than a single scan.
pub static BRAIN_T1: &[u8] = include_bytes!("../data/brain-t1/brain_t1.nii.gz");

/// One ellipse of a phantom: centre, half axes, turn in degrees, added intensity; coordinates in [-1, 1], y up.
type Ellipse = (f64, f64, f64, f64, f64, f64);

/// The ellipses of the modified Shepp-Logan phantom (Toft 1996, table B.3), whose contrast is visible without windowing.
const SHEPP_LOGAN: [Ellipse; 10] = [
    (0.0, 0.0, 0.69, 0.92, 0.0, 1.0),
    (0.0, -0.0184, 0.6624, 0.874, 0.0, -0.8),
    (0.22, 0.0, 0.11, 0.31, -18.0, -0.2),
    (-0.22, 0.0, 0.16, 0.41, 18.0, -0.2),
    (0.0, 0.35, 0.21, 0.25, 0.0, 0.1),
    (0.0, 0.1, 0.046, 0.046, 0.0, 0.1),
    (0.0, -0.1, 0.046, 0.046, 0.0, 0.1),
    (-0.08, -0.605, 0.046, 0.023, 0.0, 0.1),
    (0.0, -0.605, 0.023, 0.023, 0.0, 0.1),
    (0.06, -0.605, 0.023, 0.046, 0.0, 0.1),
];

/// The modified Shepp-Logan head phantom, `height` rows by `width` columns, values in [0, 1], anterior up.
pub fn shepp_logan(height: usize, width: usize) -> Array2<f32> {
    let centred = |i: usize, n: usize| (2.0 * i as f64 + 1.0) / n as f64 - 1.0;
    Array2::from_shape_fn((height, width), |(row, column)| {
        let (x, y) = (centred(column, width), -centred(row, height));
        let inside = |&&(cx, cy, a, b, turn, _): &&Ellipse| {
            let (sin, cos) = turn.to_radians().sin_cos();
            let (dx, dy) = (x - cx, y - cy);
            ((dx * cos + dy * sin) / a).powi(2) + ((dy * cos - dx * sin) / b).powi(2) <= 1.0
        };
        SHEPP_LOGAN.iter().filter(inside).map(|ellipse| ellipse.5).sum::<f64>().max(0.0) as f32
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phantom_has_its_published_values() {
        let phantom = shepp_logan(255, 255);
        let at = |x: f64, y: f64| {
            let index = |v: f64| ((v + 1.0) / 2.0 * 255.0) as usize;
            f64::from(phantom[[index(-y), index(x)]])
        };
        for (x, y, expected) in
            [(0.0, 0.9, 1.0), (0.95, 0.95, 0.0), (0.22, 0.0, 0.0), (0.0, 0.35, 0.3), (0.0, -0.5, 0.2)]
        {
            assert!((at(x, y) - expected).abs() < 1e-6, "at ({x}, {y}): {}", at(x, y));
        }
        assert!(phantom.iter().all(|v| (0.0..=1.0).contains(v)));
    }
}
