//! What a pickle can hold: tensors, containers, numbers and text, in flat tables.

use super::numbers::Number;

/// A result whose error says what is wrong.
pub(super) type Read<T> = Result<T, String>;

/// A value of a pickle; containers are numbers of tables in [`Pickle`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    /// None, a truth value or a floating-point number: no tensor is made of one.
    Other,
    Int(i64),
    Text(usize),
    /// A list, a tuple or a set.
    Sequence(usize),
    Dict(usize),
    Storage(usize),
    Tensor(usize),
    Callable(Callable),
}

/// The names that a state dict may refer to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Callable {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Size,
    Storage(Number),
}

/// Numbers of one type in the archive's entry `data/<key>`.
#[derive(Clone, Debug)]
pub(super) struct Storage {
    pub number: Number,
    pub key: String,
    pub len: u64,
}

/// A view of a storage.
#[derive(Clone, Debug)]
pub(super) struct Tensor {
    pub storage: usize,
    pub offset: u64,
    pub shape: Vec<u64>,
    pub strides: Vec<u64>,
}

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Pickle {
    pub texts: Vec<String>,
    pub sequences: Vec<Vec<Value>>,
    pub dicts: Vec<Vec<(Value, Value)>>,
    pub storages: Vec<Storage>,
    pub tensors: Vec<Tensor>,
}

impl Callable {
    /// By module and name.
    pub(super) fn named(module: &str, name: &str) -> Read<Callable> {
        let callable = match (module, name) {
            ("collections", "OrderedDict") => Callable::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Callable::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Callable::RebuildParameter,
            ("torch", "Size") => Callable::Size,
            ("torch", storage) => match storage.strip_suffix("Storage").and_then(Number::of_storage) {
                Some(number) => Callable::Storage(number),
                None => return Err(refused(module, name)),
            },
            _ => return Err(refused(module, name)),
        };
        Ok(callable)
    }
}

fn refused(module: &str, name: &str) -> String {
    format!(
        "refers to `{module}.{name}`; only tensors, dictionaries, lists, numbers and text are read, and nothing is executed. Save \
         the tensors alone: torch.save({{\"ema\": network.state_dict()}}, FILE)"
    )
}

impl Pickle {
    pub(super) fn text(&self, value: Value) -> Read<&str> {
        match value {
            Value::Text(at) => Ok(&self.texts[at]),
            other => Err(format!("expected text, found {other:?}")),
        }
    }

    pub(super) fn sequence(&self, value: Value) -> Read<&[Value]> {
        match value {
            Value::Sequence(at) => Ok(&self.sequences[at]),
            other => Err(format!("expected a tuple, found {other:?}")),
        }
    }

    pub(super) fn size(&self, value: Value) -> Read<u64> {
        match value {
            Value::Int(n) if n >= 0 => Ok(n as u64),
            other => Err(format!("expected a size, found {other:?}")),
        }
    }

    pub(super) fn sizes(&self, value: Value) -> Read<Vec<u64>> {
        self.sequence(value)?.iter().map(|&value| self.size(value)).collect()
    }
}
