//! A `UNet2DModel` to be trained: new, or from a directory; and back into one.

use std::path::Path;

use operators::{Noise, Space, Stream};
use serde_json::{Map, Value, json};

use super::Files;
use super::config::Config;
use super::tensors::{Blank, Tensor};
use super::unet::{self, Labels};
use super::write::{Store, safetensors};
use crate::io::write_atomic;
use crate::network::checkpoint::Checkpoint;
use crate::network::{Facts, Graph};
use crate::{Error, Result};

/// The noise of the initial numbers: apart from that of the training, which has the same seed.
const INITIAL: u8 = 6;

/// A network of diffusers' kind whose numbers are to be learned.
#[derive(Clone, Debug)]
pub struct Unet {
    /// The fields of `config.json`.
    config: Map<String, Value>,
    graph: Graph,
    tensors: Vec<Tensor>,
}

/// What a new network is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnetSettings {
    /// Channels of what it is given: those of the image, then those of a condition.
    pub in_channels: usize,
    /// Channels of what it returns: those of the image, and as many again where it learns its variance.
    pub out_channels: usize,
    /// Rows and columns of the training images, which the directory states; the network takes any.
    pub size: (usize, usize),
    /// Channels of each level, from the largest images down.
    pub channels: Vec<usize>,
    /// Residual blocks of a level on the way down; one more on the way up.
    pub layers: usize,
    /// Levels with attention, counted from 0; the middle always has it.
    pub attention: Vec<usize>,
    /// Channels of a head.
    pub head: usize,
    /// Groups of the norms.
    pub groups: usize,
    /// Rows of the table of labels.
    pub classes: Option<usize>,
}

impl UnetSettings {
    /// `config.json`: the embedding of the noise level enters as scale and shift of a norm.
    fn config(&self) -> Result<Map<String, Value>> {
        let levels = self.channels.len();
        if let Some(level) = self.attention.iter().find(|&&level| level >= levels) {
            let last = levels.saturating_sub(1);
            let message = format!("attention at level {level}: the network has the levels 0 to {last}");
            return Err(Error::Mismatch(message));
        }
        let blocks = |plain: &str, attention: &str| -> Vec<String> {
            (0..levels).map(|i| if self.attention.contains(&i) { attention } else { plain }.to_string()).collect()
        };
        let up: Vec<String> = blocks("UpBlock2D", "AttnUpBlock2D").into_iter().rev().collect();
        let (rows, columns) = self.size;
        let config = json!({
            "_class_name": "UNet2DModel",
            "sample_size": if rows == columns { json!(rows) } else { json!([rows, columns]) },
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "center_input_sample": false,
            "time_embedding_type": "positional",
            "freq_shift": 0,
            "flip_sin_to_cos": true,
            "down_block_types": blocks("DownBlock2D", "AttnDownBlock2D"),
            "up_block_types": up,
            "mid_block_type": "UNetMidBlock2D",
            "block_out_channels": self.channels,
            "layers_per_block": self.layers,
            "mid_block_scale_factor": 1,
            "downsample_padding": 1,
            "downsample_type": "conv",
            "upsample_type": "conv",
            "dropout": 0.0,
            "act_fn": "silu",
            "attention_head_dim": self.head,
            "norm_num_groups": self.groups,
            "attn_norm_num_groups": self.groups,
            "norm_eps": 1e-5,
            "resnet_time_scale_shift": "scale_shift",
            "class_embed_type": null,
            "num_class_embeds": self.classes,
            "add_attention": true,
        });
        match config {
            Value::Object(map) => Ok(map),
            _ => unreachable!("the macro was given an object"),
        }
    }
}

impl Unet {
    /// A new network with random numbers, the same for the same seed.
    ///
    /// Weights and biases of convolutions and linear layers are uniform in `+-1 / sqrt(inputs of an output)`, which is PyTorch's
    /// default (`kaiming_uniform_` with `a = sqrt(5)`); norms are 1 and 0, rows of labels standard normal. The second convolution of
    /// each residual block, the last layer of each attention and the last convolution are zero, as in the code of DDPM (Ho et al.
    /// 2020): every block is the identity at first and the network says 0, the best constant for noise, so that the first steps do
    /// not have to unlearn a random answer.
    ///
    /// # Errors
    /// [`Error::Model`] or [`Error::Mismatch`] if the settings do not make a network: levels without channels, channels that are no
    /// whole groups or heads.
    pub fn new(settings: &UnetSettings, seed: u64) -> Result<Self> {
        let config = settings.config()?;
        let path = Path::new("the new network");
        let parsed = Config::new(path, &Value::Object(config.clone()).to_string())?;
        let lowered = unet::lower(&parsed, &mut Blank { path: path.into() }, Labels::Learned)?;
        let numbers = initial(&lowered.tensors, seed)?;
        Ok(Self { config, graph: lowered.graph.with_numbers(&numbers)?, tensors: lowered.tensors })
    }

    /// The network of a diffusers directory.
    ///
    /// # Errors
    /// As [`crate::network::Prior::open`].
    pub fn open(directory: &Path) -> Result<Self> {
        let Files { config: (config_path, config), weights, .. } = Files::of(directory)?;
        Self::lower((&config_path, &config), Checkpoint::open(&weights)?)
    }

    /// The same files, already in memory; `weights` are those of a safetensors file and `name` is what errors say.
    ///
    /// # Errors
    /// As [`crate::network::Prior::open`].
    pub fn from_bytes(name: &str, config: &str, weights: &[u8]) -> Result<Self> {
        let path = Path::new(name);
        let checkpoint = Checkpoint::from_safetensors(&path.join(Files::SAFETENSORS), weights)?;
        Self::lower((&path.join(Files::CONFIG), config), checkpoint)
    }

    fn lower((path, text): (&Path, &str), mut checkpoint: Checkpoint<'_>) -> Result<Self> {
        let config = Config::new(path, text)?;
        let lowered = unet::lower(&config, &mut checkpoint, Labels::Learned)?;
        checkpoint.finish()?;
        let config = serde_json::from_str(text)
            .map_err(|e| Error::Model { path: path.into(), reason: format!("not a JSON object: {e}") })?;
        Ok(Self { config, graph: lowered.graph, tensors: lowered.tensors })
    }

    /// The layers.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// How many numbers it has.
    pub fn parameters(&self) -> usize {
        self.tensors.iter().map(Tensor::len).sum()
    }

    /// Rows of its table of labels.
    pub fn classes(&self) -> Option<usize> {
        self.config.get("num_class_embeds").and_then(Value::as_u64).map(|classes| classes as usize)
    }

    /// With another size of training images, which the directory states.
    #[must_use]
    pub fn with_size(mut self, (rows, columns): (usize, usize)) -> Self {
        let size = if rows == columns { json!(rows) } else { json!([rows, columns]) };
        self.config.insert("sample_size".into(), size);
        self
    }

    /// The same network for inputs of `channels` channels, more than it has: the numbers of the new ones are zero, so that it says
    /// at first what it said without them.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if it has more already.
    pub fn widened(self, channels: usize) -> Result<Self> {
        let had = self.graph.input_channels();
        if channels == had {
            return Ok(self);
        }
        if channels < had {
            return Err(Error::Mismatch(format!("the network takes {had} channels, {channels} were asked for")));
        }
        let Self { mut config, graph, tensors } = self;
        config.insert("in_channels".into(), channels.into());
        let path = Path::new("the widened network");
        let parsed = Config::new(path, &Value::Object(config.clone()).to_string())?;
        let lowered = unet::lower(&parsed, &mut Blank { path: path.into() }, Labels::Learned)?;
        let old = graph.numbers();
        let (mut at, mut numbers) = (0, Vec::new());
        for (before, after) in tensors.iter().zip(&lowered.tensors) {
            let values = &old[at..at + before.len()];
            at += before.len();
            if before.shape == after.shape {
                numbers.extend_from_slice(values);
                continue;
            }
            // The first convolution, [out, in, kernel, kernel].
            let (kept, width) = (before.len() / before.shape[0], after.len() / after.shape[0]);
            for row in values.chunks_exact(kept) {
                numbers.extend_from_slice(row);
                numbers.resize(numbers.len() + width - kept, 0.0);
            }
        }
        Ok(Self { config, graph: lowered.graph.with_numbers(&numbers)?, tensors: lowered.tensors })
    }

    /// Writes the directory that this program and diffusers' `UNet2DModel.from_pretrained` read: `config.json`,
    /// `diffusion_pytorch_model.safetensors` with `numbers` (in the order of [`Graph::numbers`]), `scheduler_config.json` with the
    /// text `scheduler`, and `recon.json`. Each file is replaced as a whole, the weights first.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for another count of numbers; [`Error::Numerical`] if one is not finite in the format that is stored;
    /// [`Error::Output`] if a file cannot be written.
    pub fn write(
        &self,
        directory: &Path,
        numbers: &[f32],
        store: Store,
        scheduler: &str,
        facts: &Facts,
    ) -> Result<()> {
        let weights = safetensors(&self.tensors, numbers, store)?;
        let config = serde_json::to_string_pretty(&self.config).expect("it was JSON") + "\n";
        let facts = facts.to_json();
        std::fs::create_dir_all(directory)
            .map_err(|e| Error::Output { path: directory.into(), reason: format!("cannot be made: {e}") })?;
        let files: [(&str, &[u8]); 4] = [
            (Files::SAFETENSORS, &weights),
            (Files::CONFIG, config.as_bytes()),
            (Files::SCHEDULER, scheduler.as_bytes()),
            (Facts::FILE, facts.as_bytes()),
        ];
        for (name, bytes) in files {
            write_atomic(&directory.join(name), true, |w| w.write_all(bytes))?;
        }
        Ok(())
    }
}

/// The numbers of a network that has learned nothing.
fn initial(tensors: &[Tensor], seed: u64) -> Result<Vec<f32>> {
    let mut numbers = Vec::new();
    // A bias has the bound of the weights before it.
    let mut bound = 0.0;
    for (index, tensor) in tensors.iter().enumerate() {
        let len = tensor.len();
        let (layer, part) = tensor.name.rsplit_once('.').unwrap_or((&tensor.name, ""));
        let is_zero = layer == "conv_out" || layer.ends_with(".conv2") || layer.ends_with(".to_out.0");
        let is_norm = ["norm1", "norm2", "group_norm", "conv_norm_out"].iter().any(|norm| layer.ends_with(norm));
        let stream = Stream { slice: index as u32, sample: 0, purpose: INITIAL };
        let mut noise = Noise::new(seed, vec![stream]);
        if is_norm {
            numbers.resize(numbers.len() + len, if part == "weight" { 1.0 } else { 0.0 });
        } else if is_zero {
            numbers.resize(numbers.len() + len, 0.0);
        } else if layer == "class_embedding" {
            numbers.extend_from_slice(noise.normal(&Space::real(&[len]))?.as_f32()?);
        } else {
            if part == "weight" {
                let inputs: usize = tensor.shape[1..].iter().product();
                bound = 1.0 / (inputs as f32).sqrt();
            }
            let uniform = noise.uniform(&Space::real(&[len]))?;
            numbers.extend(uniform.as_f32()?.iter().map(|u| bound * (2.0 * u - 1.0)));
        }
    }
    Ok(numbers)
}
