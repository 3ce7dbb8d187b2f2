//! How a convolution is put to cuDNN: as it is, or with its filter widened and its images packed.

use serde::{Deserialize, Serialize};

use super::{Convolution, Direction};

/// What is changed before cuDNN sees a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Form {
    /// Unequal padding `(lo, hi)` becomes equal padding of the larger one, and the filter gets rows and columns of zeros on the
    /// other side: many of cuDNN's engines know equal padding only.
    pub(super) widened: bool,
    /// The image that is read is copied from its slice of channels into a dense image.
    pub(super) packed_source: bool,
    /// The result is computed into a dense image and copied from there into its slice of channels.
    pub(super) packed_destination: bool,
}

impl Form {
    /// The forms worth trying, the most plainly supported one first.
    pub(super) fn all(convolution: &Convolution) -> Vec<Form> {
        let unequal = convolution.padding.0 != convolution.padding.1;
        let source = convolution.source_pitch() != convolution.source_channels();
        let destination = convolution.destination_pitch() != convolution.destination_channels();
        let mut forms = vec![Form { widened: unequal, packed_source: source, packed_destination: destination }];
        let others = [
            Form { widened: unequal, packed_source: false, packed_destination: false },
            Form { widened: false, packed_source: false, packed_destination: false },
        ];
        for form in others {
            if !forms.contains(&form) {
                forms.push(form);
            }
        }
        forms
    }

    /// The convolution that cuDNN sees.
    pub(super) fn apply(self, convolution: &Convolution) -> Convolution {
        let mut seen = convolution.clone();
        if self.widened {
            let (lo, hi) = convolution.padding;
            seen.kernel += lo.abs_diff(hi);
            seen.padding = (lo.max(hi), lo.max(hi));
        }
        let (dense_input, dense_output) = match convolution.direction {
            Direction::Forward => (self.packed_source, self.packed_destination),
            Direction::Transposed => (self.packed_destination, self.packed_source),
        };
        if dense_input {
            seen.input_pitch = seen.inputs;
        }
        if dense_output {
            seen.output_pitch = seen.outputs;
        }
        seen
    }

    /// Zero rows (and columns) put before the filter's own.
    pub(super) fn zeros_before(self, convolution: &Convolution) -> usize {
        // One more row of padding before the image needs one more row of the filter that meets it.
        if self.widened { convolution.padding.1.saturating_sub(convolution.padding.0) } else { 0 }
    }
}

/// Where a plan keeps what in its workspace, in bytes from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) filter: usize,
    pub(super) source: usize,
    pub(super) destination: usize,
    pub(super) total: usize,
}

impl Layout {
    /// cuDNN's own workspace comes first.
    pub(super) fn new(convolution: &Convolution, form: Form, engine_bytes: usize) -> Self {
        let seen = form.apply(convolution);
        let mut layout = Self { total: engine_bytes, ..Self::default() };
        let mut take = |wanted: bool, bytes: usize| {
            layout.total = layout.total.next_multiple_of(256);
            let at = layout.total;
            layout.total += if wanted { bytes } else { 0 };
            at
        };
        let filter = take(form.widened, seen.filter_bytes());
        let source = take(form.packed_source, seen.source_bytes());
        let destination = take(form.packed_destination, seen.destination_bytes());
        Self { filter, source, destination, total: layout.total }
    }
}
