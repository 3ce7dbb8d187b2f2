//! The layers of a `DhariwalUNet` or `SongUNet`, with the names their state dicts have.

use super::embedding;
use crate::Result;
use crate::network::checkpoint::Checkpoint;
use crate::network::classes::Classes;
use crate::network::layers::{Attention, HeadOrder, Image, Layers, Norm, Resample, Residual};
use crate::network::{Conv, Graph, Id, Weights};

/// Which of the two networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Dhariwal,
    Song,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        if self == Self::Dhariwal { "DhariwalUNet" } else { "SongUNet" }
    }

    fn eps(self) -> f32 {
        if self == Self::Dhariwal { 1e-5 } else { 1e-6 }
    }

    /// What a residual sum is multiplied with.
    fn scale(self) -> f32 {
        if self == Self::Dhariwal { 1.0 } else { 0.5f64.sqrt() as f32 }
    }
}

/// What the names and shapes of the tensors say.
#[derive(Debug)]
pub(super) struct Shape {
    pub kind: Kind,
    /// Of all names: "model." or nothing.
    pub prefix: String,
    pub resolution: usize,
    pub levels: usize,
    pub blocks: usize,
    pub in_channels: usize,
    pub out_channels: usize,
    /// Numbers that enter the embedding.
    pub noise_channels: usize,
    pub is_fourier: bool,
    pub labels: usize,
    /// The filter of up- and downsampling is [1, 3, 3, 1], not [1, 1].
    pub is_smooth: bool,
}

const RESIDUAL: [&str; 6] = ["norm0", "conv0", "affine", "norm1", "conv1", "skip"];
const ATTENTION: [&str; 3] = ["norm2", "qkv", "proj"];

fn groups(channels: usize) -> usize {
    (channels / 4).min(32)
}

impl Shape {
    pub(super) fn read(checkpoint: &mut Checkpoint<'_>) -> Result<Self> {
        let prefix = if checkpoint.has("model.map_layer0.weight") { "model." } else { "" }.to_string();
        let first = format!("{prefix}enc.");
        let resolution = checkpoint.names().find_map(|name| {
            let (side, rest) = name.strip_prefix(&first)?.split_once('x')?;
            rest.strip_suffix("_conv.weight")?;
            side.parse::<usize>().ok().filter(|&side| side > 0)
        });
        let Some(resolution) = resolution else {
            return Err(checkpoint.error(format!("no tensor `{first}<R>x<R>_conv.weight`, the first layer of EDM's networks")));
        };
        let encoder = |level: usize, block: &str| format!("{prefix}enc.{0}x{0}_{block}", resolution >> level);
        let levels = 1 + (1..16).take_while(|&l| checkpoint.has(&format!("{}.conv0.weight", encoder(l, "down")))).count();
        let blocks = (0..).take_while(|i| checkpoint.has(&format!("{}.conv0.weight", encoder(0, &format!("block{i}"))))).count();
        let [_, noise_channels] = checkpoint.shape(&format!("{prefix}map_layer0.weight"))?;
        let [_, in_channels, ..] = checkpoint.shape::<4>(&format!("{}.weight", encoder(0, "conv")))?;
        let label = format!("{prefix}map_label.weight");
        let labels = if checkpoint.has(&label) { checkpoint.shape::<2>(&label)?[1] } else { 0 };
        let kind = if checkpoint.has(&format!("{prefix}out_conv.weight")) { Kind::Dhariwal } else { Kind::Song };
        let last = match kind {
            Kind::Dhariwal => format!("{prefix}out_conv.weight"),
            Kind::Song => format!("{prefix}dec.{resolution}x{resolution}_aux_conv.weight"),
        };
        let [out_channels, ..] = checkpoint.shape::<4>(&last)?;
        let is_fourier = checkpoint.has(&format!("{prefix}map_noise.freqs"));
        let is_smooth = read_filters(checkpoint)?;
        Ok(Self {
            kind,
            prefix,
            resolution,
            levels,
            blocks,
            in_channels,
            out_channels,
            noise_channels,
            is_fourier,
            labels,
            is_smooth,
        })
    }

    fn name(&self, half: &str, level: usize, block: &str) -> String {
        format!("{}{half}.{1}x{1}_{block}", self.prefix, self.resolution >> level)
    }
}

/// Takes all resampling filters; they must be the same one. Whether it is [1, 3, 3, 1].
fn read_filters(checkpoint: &mut Checkpoint<'_>) -> Result<bool> {
    let names: Vec<String> =
        checkpoint.names().filter(|name| name.ends_with(".resample_filter")).map(String::from).collect();
    let mut is_smooth = None;
    for name in names {
        let [_, _, side, _] = checkpoint.shape(&name)?;
        let filter = checkpoint.take_constant(&name, &[1, 1, side, side])?;
        let of = |taps: &[f32]| -> Vec<f32> {
            let sum: f32 = taps.iter().sum();
            taps.iter().flat_map(|a| taps.iter().map(move |b| a * b / (sum * sum))).collect()
        };
        let equals = |taps: &[f32]| taps.len() == side && of(taps).iter().zip(&filter[..]).all(|(a, b)| (a - b).abs() < 1e-6);
        let found = if equals(&[1.0, 3.0, 3.0, 1.0]) { Some(true) } else { equals(&[1.0, 1.0]).then_some(false) };
        if found.is_none() || is_smooth.is_some_and(|known| Some(known) != found) {
            let supported = "one of [1, 1] and [1, 3, 3, 1], the same everywhere";
            return Err(checkpoint.error(format!("`{name}` {filter:?}: expected {supported}")));
        }
        is_smooth = found;
    }
    Ok(is_smooth.unwrap_or(false))
}

struct Lowering<'s, 'a, 'b> {
    shape: &'s Shape,
    layers: Layers<'a, 'b>,
    embedding: Id,
}

pub(super) fn lower(checkpoint: &mut Checkpoint<'_>, shape: &Shape) -> Result<(Graph, Option<Classes>)> {
    let (graph, input) = Graph::new(shape.in_channels);
    let mut layers = Layers { checkpoint, graph };
    let (embedding, classes) = embedding::lower(&mut layers, shape)?;
    let mut to = Lowering { shape, layers, embedding };
    let skips = to.encoder(Image { id: input, channels: shape.in_channels })?;
    to.decoder(skips)?;
    Ok((to.layers.graph, classes))
}

impl Lowering<'_, '_, '_> {
    fn resampling(&self, up: bool) -> Resample {
        match (up, self.shape.is_smooth) {
            (true, false) => Resample::Up,
            (false, false) => Resample::Down,
            (true, true) => Resample::SmoothUp,
            (false, true) => Resample::SmoothDown,
        }
    }

    fn has(&self, name: &str) -> bool {
        self.layers.checkpoint.has(name)
    }

    /// A `UNetBlock`, with attention where it has the tensors for it.
    fn block(&mut self, name: &str, x: Image, resample: Option<Resample>) -> Result<Image> {
        let kind = self.shape.kind;
        let (eps, scale) = (kind.eps(), kind.scale());
        let block = Residual { names: &RESIDUAL, resample, eps, scale };
        let x = self.layers.residual(name, x, self.embedding, groups, &block)?;
        if !self.has(&format!("{name}.qkv.weight")) {
            return Ok(x);
        }
        let heads = if kind == Kind::Dhariwal { x.channels / 64 } else { 1 };
        let order = HeadOrder::Interleaved;
        self.layers.attention(name, x, groups, &Attention { names: &ATTENTION, heads, order, eps, scale, pixel_axes: 2 })
    }

    /// The images that the decoder joins to its own; the last one is what it begins with.
    fn encoder(&mut self, input: Image) -> Result<Vec<Image>> {
        let shape = self.shape;
        let mut x = self.layers.conv(&shape.name("enc", 0, "conv"), input, 1)?;
        let mut side = input;
        let mut skips = vec![x];
        for level in 0..shape.levels {
            if level > 0 {
                let down = self.resampling(false);
                x = self.block(&shape.name("enc", level, "down"), x, Some(down))?;
                let (skip, residual) = (shape.name("enc", level, "aux_skip"), shape.name("enc", level, "aux_residual"));
                if self.has(&format!("{skip}.weight")) {
                    side = self.layers.resample(Some(down), side)?;
                    let shown = self.layers.conv(&skip, side, 1)?;
                    x = self.layers.add(x, shown, 1.0)?;
                } else if self.has(&format!("{residual}.weight")) {
                    let shown = self.convolve_down(&residual, side)?;
                    x = self.layers.add(x, shown, 0.5f64.sqrt() as f32)?;
                    side = x;
                }
                skips.push(x);
            }
            for block in 0..shape.blocks {
                x = self.block(&shape.name("enc", level, &format!("block{block}")), x, None)?;
                skips.push(x);
            }
        }
        Ok(skips)
    }

    fn decoder(&mut self, mut skips: Vec<Image>) -> Result<()> {
        let shape = self.shape;
        let mut x = *skips.last().expect("the encoder begins with a convolution");
        let mut sum: Option<Image> = None;
        for level in (0..shape.levels).rev() {
            if level + 1 == shape.levels {
                for block in ["in0", "in1"] {
                    x = self.block(&shape.name("dec", level, block), x, None)?;
                }
            } else {
                let up = self.resampling(true);
                x = self.block(&shape.name("dec", level, "up"), x, Some(up))?;
                sum = sum.map(|sum| self.layers.resample(Some(up), sum)).transpose()?;
            }
            for block in 0..=shape.blocks {
                let skip = skips.pop().expect("one more block per level than in the encoder, and its first convolution");
                x = self.layers.concat(x, skip)?;
                x = self.block(&shape.name("dec", level, &format!("block{block}")), x, None)?;
            }
            let (norm, conv) = match shape.kind {
                Kind::Dhariwal => (format!("{}out_norm", shape.prefix), format!("{}out_conv", shape.prefix)),
                Kind::Song => (shape.name("dec", level, "aux_norm"), shape.name("dec", level, "aux_conv")),
            };
            if level == 0 || (shape.kind == Kind::Song && self.has(&format!("{conv}.weight"))) {
                let norm_of = Norm { groups: groups(x.channels), eps: shape.kind.eps() };
                let normed = self.layers.norm(&norm, x, norm_of, true, None)?;
                let shown = self.layers.conv(&conv, normed, 1)?;
                sum = Some(match sum {
                    Some(sum) => self.layers.add(sum, shown, 1.0)?,
                    None => shown,
                });
            }
        }
        Ok(())
    }

    /// A 3x3 convolution fused with a downsampling: the filter sees what the convolution makes beyond the border, too, so that
    /// the two are one convolution whose kernel is that of the one convolved with the other.
    fn convolve_down(&mut self, name: &str, x: Image) -> Result<Image> {
        if !self.shape.is_smooth {
            let full = self.layers.conv(name, x, 1)?;
            return self.layers.resample(Some(Resample::Down), full);
        }
        const TAPS: [f64; 4] = [0.125, 0.375, 0.375, 0.125];
        let checkpoint = &mut *self.layers.checkpoint;
        let [outputs, ..] = checkpoint.shape::<4>(&format!("{name}.weight"))?;
        let narrow = checkpoint.take(&format!("{name}.weight"), &[outputs, x.channels, 3, 3])?;
        let bias = checkpoint.take(&format!("{name}.bias"), &[outputs])?;
        let mut weight = Vec::with_capacity(narrow.len() * 4);
        for kernel in narrow.chunks_exact(9) {
            let mut wide = [0f64; 36];
            for (at, &w) in kernel.iter().enumerate() {
                for (row, column) in (0..16).map(|tap| (tap / 4, tap % 4)) {
                    wide[(at / 3 + row) * 6 + at % 3 + column] += f64::from(w) * TAPS[row] * TAPS[column];
                }
            }
            weight.extend(wide.map(|w| w as f32));
        }
        let weight: Weights = weight.into();
        self.layers.push_conv(Conv { weight, bias, kernel: 6, stride: 2, padding: (2, 2) }, x)
    }
}
