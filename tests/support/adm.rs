//! The network of guided-diffusion (Dhariwal & Nichol 2021, `UNetModel`) with random weights, of any size.

use recon::network::{Conv, Graph, Id, Op, Weights};

/// The flags of `UNetModel` that change its shape.
pub struct Adm {
    pub channels: usize,
    pub outputs: usize,
    pub base: usize,
    pub multipliers: &'static [usize],
    pub blocks: usize,
    /// Levels (0 is the size of the image) with attention.
    pub attention: &'static [usize],
    pub head_channels: usize,
    pub groups: usize,
}

impl Adm {
    /// `ffhq_10m.pt`: 93.6 million parameters.
    #[allow(dead_code, reason = "not every test target times the published sizes")]
    pub fn ffhq() -> Self {
        let multipliers = &[1, 1, 2, 2, 4, 4];
        Self {
            channels: 3,
            outputs: 6,
            base: 128,
            multipliers,
            blocks: 1,
            attention: &[4],
            head_channels: 64,
            groups: 32,
        }
    }

    /// `256x256_diffusion_uncond.pt`: 552.8 million parameters.
    #[allow(dead_code, reason = "not every test target times the published sizes")]
    pub fn imagenet() -> Self {
        let (multipliers, attention) = (&[1, 1, 2, 2, 4, 4], &[3, 4, 5]);
        Self { channels: 3, outputs: 6, base: 256, multipliers, blocks: 2, attention, head_channels: 64, groups: 32 }
    }

    pub fn graph(&self) -> Graph {
        let (graph, input) = Graph::new(self.channels);
        let mut net = Net { graph, adm: self, state: 0x9E37_79B9_7F4A_7C15, emb: input };
        let half = self.base / 2;
        let frequencies: Weights = (0..half).map(|i| (-(10000f32.ln()) * i as f32 / half as f32).exp()).collect();
        let t = net.push(Op::Embedding { frequencies, cosine_first: true }, &[]);
        let t = net.linear(t, self.base, 4 * self.base);
        let t = net.push(Op::Silu, &[t]);
        let t = net.linear(t, 4 * self.base, 4 * self.base);
        net.emb = net.push(Op::Silu, &[t]);
        let mut x = net.conv(input, self.channels, self.base, 3, 1.0);
        let mut c = self.base;
        let mut skips = vec![(x, c)];
        for (level, m) in self.multipliers.iter().enumerate() {
            for _ in 0..self.blocks {
                (x, c) = (net.block(x, c, m * self.base, None), m * self.base);
                x = net.attention_at(x, c, level);
                skips.push((x, c));
            }
            if level + 1 < self.multipliers.len() {
                x = net.block(x, c, c, Some(Op::Downsample));
                skips.push((x, c));
            }
        }
        x = net.block(x, c, c, None);
        x = net.attention(x, c);
        x = net.block(x, c, c, None);
        for (level, m) in self.multipliers.iter().enumerate().rev() {
            for i in 0..=self.blocks {
                let (skip, extra) = skips.pop().expect("as many as were pushed");
                let joined = net.push(Op::Concat, &[x, skip]);
                (x, c) = (net.block(joined, c + extra, m * self.base, None), m * self.base);
                x = net.attention_at(x, c, level);
                if level > 0 && i == self.blocks {
                    x = net.block(x, c, c, Some(Op::Upsample));
                }
            }
        }
        let x = net.norm(x, c, None, true);
        net.conv(x, c, self.outputs, 3, 1.0);
        net.graph
    }
}

struct Net<'a> {
    graph: Graph,
    adm: &'a Adm,
    state: u64,
    emb: Id,
}

impl Net<'_> {
    fn push(&mut self, op: Op, inputs: &[Id]) -> Id {
        self.graph.push(op, inputs).expect("a layer that fits")
    }

    /// Uniform numbers of that standard deviation around `mean`.
    fn random(&mut self, count: usize, mean: f32, std: f32) -> Weights {
        let scale = std * 12f32.sqrt() / (1u64 << 32) as f32;
        let mut draw = || {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            mean + ((self.state >> 32) as f32 - (1u64 << 31) as f32) * scale
        };
        (0..count).map(|_| draw()).collect()
    }

    fn linear(&mut self, x: Id, inputs: usize, outputs: usize) -> Id {
        let weight = self.random(inputs * outputs, 0.0, (1.0 / inputs as f32).sqrt());
        let bias = self.random(outputs, 0.0, 0.1);
        self.push(Op::Linear { weight, bias }, &[x])
    }

    fn conv(&mut self, x: Id, inputs: usize, outputs: usize, kernel: usize, gain: f32) -> Id {
        let taps = kernel * kernel;
        let weight = self.random(inputs * outputs * taps, 0.0, gain * (1.0 / (inputs * taps) as f32).sqrt());
        let bias = self.random(outputs, 0.0, 0.1);
        let padding = (kernel / 2, kernel / 2);
        self.push(Op::Conv(Conv { weight, bias, kernel, stride: 1, padding }), &[x])
    }

    fn norm(&mut self, x: Id, channels: usize, scale_shift: Option<Id>, silu: bool) -> Id {
        let (weight, bias) = (self.random(channels, 1.0, 0.2), self.random(channels, 0.0, 0.2));
        let op = Op::GroupNorm { groups: self.adm.groups, eps: 1e-5, weight, bias, silu };
        let inputs: Vec<Id> = [Some(x), scale_shift].into_iter().flatten().collect();
        self.push(op, &inputs)
    }

    fn block(&mut self, x: Id, inputs: usize, outputs: usize, resample: Option<Op>) -> Id {
        let mut h = self.norm(x, inputs, None, true);
        let mut skip = x;
        if let Some(op) = resample {
            h = self.push(op.clone(), &[h]);
            skip = self.push(op, &[x]);
        }
        let h = self.conv(h, inputs, outputs, 3, 1.0);
        let emb = self.linear(self.emb, 4 * self.adm.base, 2 * outputs);
        let h = self.norm(h, outputs, Some(emb), true);
        if inputs != outputs {
            skip = self.conv(skip, inputs, outputs, 1, 1.0);
        }
        let h = self.conv(h, outputs, outputs, 3, 0.5);
        self.push(Op::Add { scale: 1.0 }, &[skip, h])
    }

    fn attention_at(&mut self, x: Id, channels: usize, level: usize) -> Id {
        if self.adm.attention.contains(&level) { self.attention(x, channels) } else { x }
    }

    fn attention(&mut self, x: Id, channels: usize) -> Id {
        let h = self.norm(x, channels, None, false);
        let h = self.conv(h, channels, 3 * channels, 1, 1.0);
        let h = self.push(Op::Attention { heads: channels / self.adm.head_channels }, &[h]);
        let h = self.conv(h, channels, channels, 1, 0.5);
        self.push(Op::Add { scale: 1.0 }, &[x, h])
    }
}
