//! The pickles of PyTorch state dicts, read by a small stack machine that can build tensors, containers, numbers and text and
//! nothing else. It calls nothing: a name it does not know is an error.
//!
//! Everything it makes lies in flat tables, so that no nesting and no cycle of a hostile file can exhaust the stack.

use std::collections::HashMap;

use super::numbers::Number;

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

type Read<T> = Result<T, String>;

fn global(module: &str, name: &str) -> Read<Callable> {
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

fn refused(module: &str, name: &str) -> String {
    format!(
        "refers to `{module}.{name}`; only tensors, dictionaries, lists, numbers and text are read, and nothing is executed. Save \
         the tensors alone: torch.save({{\"ema\": network.state_dict()}}, FILE)"
    )
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u64, Value>,
    made: Pickle,
}

/// Reads a pickle; the second value is its result.
pub(super) fn read(bytes: &[u8]) -> Read<(Pickle, Value)> {
    let (stack, marks, memo) = (Vec::new(), Vec::new(), HashMap::new());
    let mut machine = Machine { bytes, at: 0, stack, marks, memo, made: Pickle::default() };
    let result = machine.run().map_err(|reason| format!("pickle, byte {}: {reason}", machine.at))?;
    Ok((machine.made, result))
}

impl Machine<'_> {
    fn run(&mut self) -> Read<Value> {
        loop {
            let opcode = self.byte()?;
            match opcode {
                b'.' => return self.pop(),
                0x80 => _ = self.byte()?,
                0x95 => _ = self.number(8)?,
                b'(' => self.marks.push(self.stack.len()),
                b'0' => _ = self.pop()?,
                b'1' => _ = self.pop_mark()?,
                b'2' => self.stack.push(*self.stack.last().ok_or("nothing to copy")?),
                b'N' | 0x88 | 0x89 => self.stack.push(Value::Other),
                b'J' => _ = self.number(4).map(|n| self.stack.push(Value::Int(i64::from(n as u32 as i32))))?,
                b'K' => _ = self.number(1).map(|n| self.stack.push(Value::Int(n as i64)))?,
                b'M' => _ = self.number(2).map(|n| self.stack.push(Value::Int(n as i64)))?,
                0x8a => self.long()?,
                b'G' => _ = self.number(8).map(|_| self.stack.push(Value::Other))?,
                b'X' | b'T' | b'B' => self.text(4)?,
                0x8c | b'U' | b'C' => self.text(1)?,
                0x8d | 0x8e => self.text(8)?,
                b'}' => self.dict(Vec::new()),
                b']' | b')' | 0x8f => self.sequence(Vec::new()),
                0x85..=0x87 => {
                    let count = usize::from(opcode - 0x84);
                    let from = self.stack.len().checked_sub(count).ok_or("a tuple of more values than there are")?;
                    let values = self.stack.split_off(from);
                    self.sequence(values);
                }
                b't' | b'l' | 0x91 => {
                    let values = self.pop_mark()?;
                    self.sequence(values);
                }
                b'd' => {
                    let pairs = self.pop_mark().and_then(pairs)?;
                    self.dict(pairs);
                }
                b'a' => {
                    let value = self.pop()?;
                    self.top_sequence()?.push(value);
                }
                b'e' | 0x90 => {
                    let values = self.pop_mark()?;
                    self.top_sequence()?.extend(values);
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.top_dict()?.push((key, value));
                }
                b'u' => {
                    let pairs = self.pop_mark().and_then(pairs)?;
                    self.top_dict()?.extend(pairs);
                }
                b'h' | b'j' => {
                    let key = self.number(if opcode == b'h' { 1 } else { 4 })?;
                    let value = *self.memo.get(&key).ok_or("a value is used before it was made")?;
                    self.stack.push(value);
                }
                b'q' | b'r' | 0x94 => {
                    let key = match opcode {
                        b'q' => self.number(1)?,
                        b'r' => self.number(4)?,
                        _ => self.memo.len() as u64,
                    };
                    let value = *self.stack.last().ok_or("nothing to remember")?;
                    self.memo.insert(key, value);
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.stack.push(Value::Callable(global(&module, &name)?));
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let callable = global(self.made.text(module)?, self.made.text(name)?)?;
                    self.stack.push(Value::Callable(callable));
                }
                b'R' => {
                    let (arguments, callable) = (self.pop()?, self.pop()?);
                    let value = self.call(callable, arguments)?;
                    self.stack.push(value);
                }
                b'b' => {
                    // The attributes of a state dict (`_metadata`) and of a parameter: no layer needs them.
                    self.pop()?;
                    let top = self.stack.last();
                    if !matches!(top, Some(Value::Dict(_) | Value::Tensor(_))) {
                        return Err(format!("attributes for {top:?}"));
                    }
                }
                b'Q' => {
                    let id = self.pop()?;
                    let value = self.storage(id)?;
                    self.stack.push(value);
                }
                other => {
                    self.at -= 1;
                    return Err(format!("opcode 0x{other:02x} makes something that is neither tensor nor plain data"));
                }
            }
        }
    }

    fn byte(&mut self) -> Read<u8> {
        Ok(self.take(1)?[0])
    }

    fn take(&mut self, count: usize) -> Read<&[u8]> {
        let end = self.at.checked_add(count).filter(|&end| end <= self.bytes.len());
        let slice = &self.bytes[self.at..end.ok_or("it is cut off")?];
        self.at += count;
        Ok(slice)
    }

    /// An unsigned number of `count` bytes.
    fn number(&mut self, count: usize) -> Read<u64> {
        Ok(self.take(count)?.iter().rev().fold(0, |n, &byte| n << 8 | u64::from(byte)))
    }

    fn long(&mut self) -> Read<()> {
        let count = usize::from(self.byte()?);
        if count > 8 {
            return Err(format!("an integer of {count} bytes"));
        }
        let unsigned = self.number(count)?;
        let shift = 64 - 8 * count as u32;
        let value = if count == 0 { 0 } else { ((unsigned << shift) as i64) >> shift };
        self.stack.push(Value::Int(value));
        Ok(())
    }

    /// Text (or bytes, which no layer needs) behind its length of `width` bytes.
    fn text(&mut self, width: usize) -> Read<()> {
        let count = usize::try_from(self.number(width)?).map_err(|_| "a text longer than the file")?;
        let text = String::from_utf8_lossy(self.take(count)?).into_owned();
        self.made.texts.push(text);
        self.stack.push(Value::Text(self.made.texts.len() - 1));
        Ok(())
    }

    fn line(&mut self) -> Read<String> {
        let len = self.bytes[self.at..].iter().position(|&byte| byte == b'\n').ok_or("it is cut off")?;
        let text = String::from_utf8_lossy(self.take(len)?).into_owned();
        self.at += 1;
        Ok(text)
    }

    fn pop(&mut self) -> Read<Value> {
        // A value below the last mark belongs to what comes after it.
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err("a value is missing".into());
        }
        self.stack.pop().ok_or("a value is missing".into())
    }

    fn pop_mark(&mut self) -> Read<Vec<Value>> {
        let from = self.marks.pop().filter(|&from| from <= self.stack.len()).ok_or("a mark is missing")?;
        Ok(self.stack.split_off(from))
    }

    fn dict(&mut self, pairs: Vec<(Value, Value)>) {
        self.made.dicts.push(pairs);
        self.stack.push(Value::Dict(self.made.dicts.len() - 1));
    }

    fn sequence(&mut self, values: Vec<Value>) {
        self.made.sequences.push(values);
        self.stack.push(Value::Sequence(self.made.sequences.len() - 1));
    }

    fn top_sequence(&mut self) -> Read<&mut Vec<Value>> {
        match self.stack.last() {
            Some(&Value::Sequence(at)) => Ok(&mut self.made.sequences[at]),
            other => Err(format!("an element for {other:?}, which is no list")),
        }
    }

    fn top_dict(&mut self) -> Read<&mut Vec<(Value, Value)>> {
        match self.stack.last() {
            Some(&Value::Dict(at)) => Ok(&mut self.made.dicts[at]),
            other => Err(format!("an entry for {other:?}, which is no dictionary")),
        }
    }

    fn call(&mut self, callable: Value, arguments: Value) -> Read<Value> {
        let arguments = self.made.sequence(arguments)?.to_vec();
        match (callable, &arguments[..]) {
            (Value::Callable(Callable::OrderedDict), []) => {
                self.made.dicts.push(Vec::new());
                Ok(Value::Dict(self.made.dicts.len() - 1))
            }
            (Value::Callable(Callable::RebuildTensor), [Value::Storage(storage), offset, shape, strides, ..]) => {
                let tensor = Tensor {
                    storage: *storage,
                    offset: self.made.size(*offset)?,
                    shape: self.made.sizes(*shape)?,
                    strides: self.made.sizes(*strides)?,
                };
                if tensor.shape.len() != tensor.strides.len() || tensor.shape.len() > 8 {
                    return Err(format!("a tensor of shape {:?} and strides {:?}", tensor.shape, tensor.strides));
                }
                self.made.tensors.push(tensor);
                Ok(Value::Tensor(self.made.tensors.len() - 1))
            }
            (Value::Callable(Callable::RebuildParameter), [tensor @ Value::Tensor(_), ..]) => Ok(*tensor),
            (Value::Callable(Callable::Size), [sizes @ Value::Sequence(_)]) => Ok(*sizes),
            _ => Err(format!("a call of {callable:?} with {arguments:?}")),
        }
    }

    /// `("storage", type, key, device, numbers)`.
    fn storage(&mut self, id: Value) -> Read<Value> {
        match self.made.sequence(id)? {
            &[kind, Value::Callable(Callable::Storage(number)), key, _, len] if self.made.text(kind)? == "storage" => {
                let storage = Storage { number, key: self.made.text(key)?.into(), len: self.made.size(len)? };
                self.made.storages.push(storage);
                Ok(Value::Storage(self.made.storages.len() - 1))
            }
            other => Err(format!("a reference to {other:?}, which is no storage")),
        }
    }
}

fn pairs(values: Vec<Value>) -> Read<Vec<(Value, Value)>> {
    if values.len() % 2 == 1 {
        return Err("a key without a value".into());
    }
    Ok(values.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

impl Pickle {
    pub(super) fn text(&self, value: Value) -> Read<&str> {
        match value {
            Value::Text(at) => Ok(&self.texts[at]),
            other => Err(format!("expected text, found {other:?}")),
        }
    }

    fn sequence(&self, value: Value) -> Read<&[Value]> {
        match value {
            Value::Sequence(at) => Ok(&self.sequences[at]),
            other => Err(format!("expected a tuple, found {other:?}")),
        }
    }

    fn size(&self, value: Value) -> Read<u64> {
        match value {
            Value::Int(n) if n >= 0 => Ok(n as u64),
            other => Err(format!("expected a size, found {other:?}")),
        }
    }

    fn sizes(&self, value: Value) -> Read<Vec<u64>> {
        self.sequence(value)?.iter().map(|&value| self.size(value)).collect()
    }
}
