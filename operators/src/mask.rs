//! Masks: some pixels are measured, the others are lost.

use std::path::PathBuf;

use ndarray::{Array2, ArrayD, IxDyn};

use crate::cuda::kept::Constant;
use crate::files::{is_npy, read_gray_picture, read_npy, unusable};
use crate::registry::{Context, Entry};
use crate::solve::check_lambda;
use crate::spec::Parameter;
use crate::{Array, Error, Fact, ForwardOperator, Noise, Result, Space, Spec, Stream};

/// `y = m x`, `m` one where an element is kept and zero where it is lost.
///
/// The measurement has the shape of the image, with zeros where nothing was measured (whatever stands there in a measurement
/// is ignored). All singular values are 0 or 1.
#[derive(Debug)]
pub struct Mask {
    space: Space,
    kept: Constant,
    lost: Constant,
    facts: Vec<Fact>,
}

impl Mask {
    /// Keeps the elements that are `true` in `kept`, which has the shape of an image or of its last axes (`[height, width]`: the
    /// same in every channel).
    ///
    /// # Errors
    /// [`Error::Shape`] if it has another shape; [`Error::Unsupported`] if it keeps nothing.
    pub fn new(space: &Space, kept: &ArrayD<bool>) -> Result<Self> {
        let Some(full) = kept.broadcast(IxDyn(space.shape())) else {
            let expected = format!("{:?} or its last axes", space.shape());
            return Err(Error::Shape { what: "mask".into(), expected, got: kept.shape().to_vec() });
        };
        if !kept.iter().any(|&k| k) {
            let reason = "expected at least one pixel to be kept, every one is removed".into();
            return Err(Error::Unsupported { what: "mask".into(), reason });
        }
        let item =
            |value: fn(bool) -> f32| Array::from_vec(&space.batched(1), full.iter().map(|&k| value(k)).collect());
        let fraction = full.iter().filter(|&&k| k).count() as f64 / full.len() as f64;
        let facts = vec![Fact::number("kept_fraction", fraction)];
        Ok(Self {
            space: space.clone(),
            kept: item(|k| f32::from(u8::from(k)))?.into(),
            lost: item(|k| f32::from(u8::from(!k)))?.into(),
            facts,
        })
    }

    /// The same mask, with more facts for the log.
    pub fn with_facts(mut self, facts: impl IntoIterator<Item = Fact>) -> Self {
        self.facts.extend(facts);
        self
    }

    fn keep(&self, a: &Array) -> Result<Array> {
        self.space.check(a, "mask")?;
        a.mul(&self.kept.on(&a.device())?)
    }

    /// `(1 - m) a`.
    fn rest(&self, a: &Array) -> Result<Array> {
        a.mul(&self.lost.on(&a.device())?)
    }
}

impl ForwardOperator for Mask {
    fn domain(&self) -> &Space {
        &self.space
    }
    fn range(&self) -> &Space {
        &self.space
    }
    fn apply(&self, x: &Array) -> Result<Array> {
        self.keep(x)
    }
    fn adjoint(&self, y: &Array) -> Result<Array> {
        self.keep(y)
    }
    fn normal(&self, x: &Array) -> Result<Array> {
        self.keep(x)
    }
    fn norm(&self) -> Result<f64> {
        Ok(1.0)
    }
    fn pseudo_inverse(&self, y: &Array) -> Result<Array> {
        self.keep(y)
    }
    fn solve_normal(&self, b: &Array, lambda: f64) -> Result<Array> {
        check_lambda(lambda)?;
        self.keep(b)?.scale(1.0 / (1.0 + lambda)).add(&self.rest(b)?.scale(1.0 / lambda))
    }
    /// `m y + (1 - m) x`: the measured pixels exactly.
    fn project(&self, x: &Array, y: &Array) -> Result<Array> {
        self.space.check(x, "mask")?;
        self.keep(y)?.add(&self.rest(x)?)
    }
    fn spectral(&self, y: &Array, f: &dyn Fn(f64) -> f64) -> Result<Option<Array>> {
        Ok(Some(self.keep(y)?.scale(f(1.0))))
    }
    fn support(&self) -> Option<Array> {
        Some(self.kept.host().clone())
    }
    fn facts(&self) -> Vec<Fact> {
        self.facts.clone()
    }
}

/// Keeps everything outside a box of `size` rows and columns whose first pixel is `at`.
///
/// # Errors
/// [`Error::Unsupported`] if the box is empty or not inside the image, or is all of it.
pub fn inpaint_box(images: &Space, size: [usize; 2], at: [usize; 2]) -> Result<Mask> {
    let [height, width] = plane(images)?;
    let inside = |axis: usize, length: usize| size[axis] > 0 && size[axis] <= length && at[axis] <= length - size[axis];
    if !inside(0, height) || !inside(1, width) {
        let reason = format!(
            "expected a box inside the image of {height}x{width}, got {}x{} at row {}, column {}",
            size[0], size[1], at[0], at[1]
        );
        return Err(Error::Unsupported { what: "inpaint-box".into(), reason });
    }
    let inside = |i: usize, axis: usize| (at[axis]..at[axis] + size[axis]).contains(&i);
    let kept = Array2::from_shape_fn((height, width), |(row, column)| !(inside(row, 0) && inside(column, 1)));
    let facts =
        [Fact::text("box", format!("{}x{}", size[0], size[1])), Fact::text("box_at", format!("{},{}", at[0], at[1]))];
    Ok(Mask::new(images, &kept.into_dyn())?.with_facts(facts))
}

/// Removes `round(p height width)` pixels drawn without replacement, the same in every channel.
///
/// # Errors
/// [`Error::Parameter`] if `p` is not in `[0, 1]`; [`Error::Unsupported`] if nothing is left.
pub fn inpaint_random(images: &Space, p: f64, seed: u64) -> Result<Mask> {
    let [height, width] = plane(images)?;
    if !(0.0..=1.0).contains(&p) {
        let reason = format!("expected the fraction of pixels removed, from 0 to 1, got {p}");
        return Err(Error::Parameter { what: "inpaint-random".into(), name: "p".into(), reason });
    }
    let keys = uniform(seed, height * width)?;
    let mut order: Vec<usize> = (0..height * width).collect();
    // Equal keys are told apart by position, so the order is the same on every machine.
    order.sort_by(|&a, &b| keys[a].total_cmp(&keys[b]).then(a.cmp(&b)));
    let mut kept = Array2::from_elem((height, width), true);
    for &i in &order[..(p * order.len() as f64).round() as usize] {
        kept[[i / width, i % width]] = false;
    }
    Ok(Mask::new(images, &kept.into_dyn())?.with_facts([Fact::number("seed", seed as f64)]))
}

fn plane(images: &Space) -> Result<[usize; 2]> {
    match *images.shape() {
        [_, height, width] => Ok([height, width]),
        ref other => Err(Error::Shape {
            what: "mask".into(),
            expected: "images [channels, height, width]".into(),
            got: other.to_vec(),
        }),
    }
}

fn uniform(seed: u64, count: usize) -> Result<Vec<f32>> {
    let stream = Stream { purpose: Stream::OPERATOR, ..Stream::default() };
    Ok(Noise::new(seed, vec![stream]).uniform(&Space::real(&[count]))?.as_f32()?.to_vec())
}

pub(crate) const BOX: Entry = Entry {
    name: "inpaint-box",
    about: "a box of pixels is lost",
    reference: "box inpainting as in Chung et al., Diffusion posterior sampling, ICLR 2023",
    shorthand: None,
    parameters: &[
        Parameter { name: "size", default: "half of each side", about: "pixels: a number, or HEIGHTxWIDTH" },
        Parameter { name: "at", default: "centre", about: "centre, random, or ROW,COLUMN of the first lost pixel" },
        Parameter { name: "seed", default: "0", about: "seed of at=random" },
    ],
    examples: &[
        "inpaint-box",
        "inpaint-box:size=4",
        "inpaint-box:size=3x5,at=1,2",
        "inpaint-box:size=5,at=random,seed=3",
    ],
    build: |spec, context| Ok(Box::new(build_box(spec, context)?)),
};

fn build_box(spec: &Spec, context: &Context) -> Result<Mask> {
    let [height, width] = plane(&context.image)?;
    let wrong_size =
        |text: &str| spec.error("size", format!("expected a number or HEIGHTxWIDTH in pixels, got `{text}`"));
    let size = match spec.text("size") {
        None => [height / 2, width / 2],
        Some(text) => {
            let (h, w) = text.split_once('x').unwrap_or((text, text));
            let side = |s: &str| s.parse().ok().filter(|&n| n > 0).ok_or_else(|| wrong_size(text));
            [side(h)?, side(w)?]
        }
    };
    let too_large =
        || spec.error("size", format!("a box of {}x{} does not fit the image of {height}x{width}", size[0], size[1]));
    let room = [height.checked_sub(size[0]).ok_or_else(too_large)?, width.checked_sub(size[1]).ok_or_else(too_large)?];
    let seed: u64 = spec.get("seed", 0)?;
    let at = match spec.text("at") {
        None | Some("centre" | "center") => [room[0] / 2, room[1] / 2],
        Some("random") => {
            let draws = uniform(seed, 2)?;
            // A draw is in (0, 1], so its ceiling counts 1..=room + 1.
            [0, 1].map(|axis| {
                ((f64::from(draws[axis]) * (room[axis] + 1) as f64).ceil() as usize).clamp(1, room[axis] + 1) - 1
            })
        }
        Some(text) => {
            let wrong = || spec.error("at", format!("expected centre, random or ROW,COLUMN, got `{text}`"));
            let (row, column) = text.split_once(',').ok_or_else(wrong)?;
            [row.trim().parse().map_err(|_| wrong())?, column.trim().parse().map_err(|_| wrong())?]
        }
    };
    inpaint_box(&context.image, size, at)
}

pub(crate) const RANDOM: Entry = Entry {
    name: "inpaint-random",
    about: "random pixels are lost, the same in every channel",
    reference: "random inpainting as in Chung et al., Diffusion posterior sampling, ICLR 2023",
    shorthand: None,
    parameters: &[
        Parameter { name: "p", default: "0.9", about: "fraction of the pixels that is lost, from 0 to 1" },
        Parameter { name: "seed", default: "0", about: "seed of the mask" },
    ],
    examples: &["inpaint-random", "inpaint-random:p=0.5,seed=7"],
    build: |spec, context| {
        Ok(Box::new(inpaint_random(&context.image, spec.number("p", 0.9, 0.0..=1.0)?, spec.get("seed", 0)?)?))
    },
};

pub(crate) const FILE: Entry = Entry {
    name: "mask",
    about: "pixels are lost where a mask file is zero",
    reference: "a mask of one's own",
    shorthand: None,
    parameters: &[Parameter {
        name: "file",
        default: "",
        about: "a grey picture, or .npy [height, width] or [channels, height, width]: zero = lost, one other value = kept",
    }],
    examples: &[],
    build: |spec, context| Ok(Box::new(from_file(&spec.required::<PathBuf>("file")?, &context.image)?)),
};

/// The mask in a file: zero is lost, nonzero is kept. Only two values may occur: a mask with intermediate values is an error,
/// because thresholding it would be a guess.
fn from_file(path: &std::path::Path, images: &Space) -> Result<Mask> {
    let values = if is_npy(path) { read_npy(path)? } else { read_gray_picture(path)?.into_dyn() };
    let fits = values.shape() == images.shape() || values.shape() == &images.shape()[1..];
    if !fits {
        let (expected, got) = (&images.shape()[1..], values.shape());
        return Err(unusable(path, format!("expected a mask of the image's size {expected:?}, got {got:?}")));
    }
    let on = values.iter().copied().find(|&v| v != 0.0).unwrap_or(1.0);
    if let Some(other) = values.iter().find(|&&v| v != 0.0 && v != on) {
        return Err(unusable(
            path,
            format!("expected a mask of two values, zero and another; got 0, {on} and {other}"),
        ));
    }
    if !values.iter().any(|&v| v != 0.0) {
        return Err(unusable(path, "expected at least one pixel to be kept, the mask is zero everywhere"));
    }
    Ok(Mask::new(images, &values.mapv(|v| v != 0.0))?.with_facts([Fact::text("mask_file", path.display().to_string())]))
}
