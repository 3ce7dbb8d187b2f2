//! The classical rivals on operators small enough to know the answer.

use ndarray::{Array4, Axis};
use num_complex::Complex32;
use operators::{Array, DType, Error, ForwardOperator, Noise, Result, Space, Spec, Stream};
use recon::classical::tune_lambda;
use recon::denoiser::{Denoiser, Linearization};
use recon::operators;
use recon::samplers::{self, Problem, Run, Silent};
use rustfft::FftPlanner;

include!("classical/operators.rs");
