//! The one object of cuDNN's backend API: a descriptor with attributes.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use cudarc::cudnn::sys::{self, cudnnStatus_t};
pub(super) use cudarc::cudnn::sys::{
    cudnnBackendAttributeName_t as Attribute, cudnnBackendAttributeType_t as Type, cudnnBackendDescriptorType_t as Kind,
};

use crate::Result;

/// A descriptor, destroyed with its owner.
pub(super) struct Descriptor(sys::cudnnBackendDescriptor_t);

// SAFETY: a descriptor is memory of cuDNN without ties to a thread. A finalized one is only read, and what is done with one that
// is not finalized is done by its only owner.
unsafe impl Send for Descriptor {}
// SAFETY: as above; a shared reference to a finalized descriptor only reads it.
unsafe impl Sync for Descriptor {}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // SAFETY: created by `new`, destroyed once. A failure leaves nothing that could be done about it.
        unsafe { sys::cudnnBackendDestroyDescriptor(self.0) };
    }
}

/// The error of a call of cuDNN 9, with cuDNN's own explanation.
pub(super) fn check(status: cudnnStatus_t, what: impl FnOnce() -> String) -> Result<()> {
    if status == cudnnStatus_t::CUDNN_STATUS_SUCCESS {
        return Ok(());
    }
    let mut text = [0 as c_char; 512];
    // SAFETY: the buffer is as long as is said; the function exists in every cuDNN 9, and nothing older was opened.
    unsafe { sys::cudnnGetLastErrorString(text.as_mut_ptr(), text.len()) };
    text[text.len() - 1] = 0;
    // SAFETY: the last element is zero, so the string ends inside the buffer.
    let explanation = unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy();
    let explanation = explanation.trim();
    let pause = if explanation.is_empty() { "" } else { ": " };
    Err(super::failure(format!("cuDNN: {}: {status:?}{pause}{explanation}", what())))
}

impl Descriptor {
    /// An empty descriptor.
    pub(super) fn new(kind: Kind) -> Result<Self> {
        let mut raw = ptr::null_mut();
        // SAFETY: `raw` is a place for one pointer.
        check(unsafe { sys::cudnnBackendCreateDescriptor(kind, &mut raw) }, || format!("creating {kind:?}"))?;
        Ok(Self(raw))
    }

    /// The pointer, valid while `self` lives.
    pub(super) fn raw(&self) -> sys::cudnnBackendDescriptor_t {
        self.0
    }

    /// Sets an attribute; `T` must be the C type that belongs to `type_`.
    pub(super) fn set<T: Copy>(&mut self, name: Attribute, type_: Type, values: &[T]) -> Result<()> {
        let values_at = values.as_ptr().cast::<c_void>();
        // SAFETY: the callers in this module pair types as cuDNN's reference does, and `values` holds as many elements as is said.
        let status = unsafe { sys::cudnnBackendSetAttribute(self.0, name, type_, values.len() as i64, values_at) };
        check(status, || format!("setting {name:?}"))
    }

    /// Sets an attribute to another descriptor.
    pub(super) fn set_descriptor(&mut self, name: Attribute, value: &Descriptor) -> Result<()> {
        self.set(name, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR, &[value.0])
    }

    /// Sets an attribute of integers.
    pub(super) fn set_integers(&mut self, name: Attribute, values: &[i64]) -> Result<()> {
        self.set(name, Type::CUDNN_TYPE_INT64, values)
    }

    /// From here on the descriptor is only read.
    pub(super) fn finalize(self, what: &str) -> Result<Self> {
        // SAFETY: a valid descriptor.
        check(unsafe { sys::cudnnBackendFinalize(self.0) }, || format!("finalizing {what}"))?;
        Ok(self)
    }

    /// Reads at most `values.len()` elements of an attribute and tells how many there are.
    ///
    /// `T` must be the C type that belongs to `type_`, and an integer wherever cuDNN returns an enumeration: a later version
    /// may return values that are unknown here.
    pub(super) fn get<T: Copy>(&self, name: Attribute, type_: Type, values: &mut [T]) -> Result<usize> {
        let mut count = 0i64;
        let at = if values.is_empty() { ptr::null_mut() } else { values.as_mut_ptr().cast::<c_void>() };
        // SAFETY: `values` has room for as many elements as is said.
        let status = unsafe { sys::cudnnBackendGetAttribute(self.0, name, type_, values.len() as i64, &mut count, at) };
        check(status, || format!("reading {name:?}"))?;
        Ok(count.max(0) as usize)
    }

    /// Reads an attribute of one integer.
    pub(super) fn integer(&self, name: Attribute) -> Result<i64> {
        let mut value = [0i64];
        self.get(name, Type::CUDNN_TYPE_INT64, &mut value)?;
        Ok(value[0])
    }

    /// Reads at most `limit` descriptors of an attribute.
    pub(super) fn descriptors(&self, name: Attribute, kind: Kind, limit: usize) -> Result<Vec<Descriptor>> {
        // cuDNN fills descriptors that exist already.
        let mut found = (0..limit).map(|_| Descriptor::new(kind)).collect::<Result<Vec<_>>>()?;
        let mut raw: Vec<_> = found.iter().map(|descriptor| descriptor.0).collect();
        let count = self.get(name, Type::CUDNN_TYPE_BACKEND_DESCRIPTOR, &mut raw)?;
        found.truncate(count);
        Ok(found)
    }
}
