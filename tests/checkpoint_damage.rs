//! Wrong, truncated and hostile checkpoints: an error that says what is wrong, never a panic, and no memory for sizes that a file
//! only claims.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use recon::Error;
use recon::network::Prior;

/// A zip archive of stored entries.
fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in entries {
        let header = file.len() as u32;
        let mut common = vec![0u8; 26];
        common[14..18].copy_from_slice(&(data.len() as u32).to_le_bytes());
        common[18..22].copy_from_slice(&(data.len() as u32).to_le_bytes());
        common[22..24].copy_from_slice(&(name.len() as u16).to_le_bytes());
        file.extend([b"PK\x03\x04", &common[..], name.as_bytes(), data].concat());
        let after = [&[0u8; 12][..], &header.to_le_bytes()].concat();
        directory.extend([b"PK\x01\x02\x00\x00", &common[..], &after[2..], name.as_bytes()].concat());
    }
    let (start, len) = (file.len() as u32, directory.len() as u32);
    file.extend(directory);
    file.extend([b"PK\x05\x06\0\0\0\0\0\0\0\0", &len.to_le_bytes()[..], &start.to_le_bytes(), &[0, 0]].concat());
    file
}

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn int(n: i32) -> Vec<u8> {
    [b"J", &n.to_le_bytes()[..]].concat()
}

fn tuple(values: &[Vec<u8>]) -> Vec<u8> {
    [b"(", &values.concat()[..], b"t"].concat()
}

fn sizes(values: &[i32]) -> Vec<u8> {
    tuple(&values.iter().map(|&n| int(n)).collect::<Vec<_>>())
}

fn call(name: &str, arguments: &[Vec<u8>]) -> Vec<u8> {
    [b"c", name.replacen('.', "\n", 1).as_bytes(), b"\n", &tuple(arguments), b"R"].concat()
}

fn tensor(storage_len: i32, offset: i32, shape: &[i32], strides: &[i32]) -> Vec<u8> {
    let storage = [text("storage"), b"ctorch\nFloatStorage\n".to_vec(), text("0"), text("cpu"), int(storage_len)];
    let storage = [tuple(&storage), b"Q".to_vec()].concat();
    let hooks = call("collections.OrderedDict", &[]);
    let arguments = [storage, int(offset), sizes(shape), sizes(strides), b"\x89".to_vec(), hooks];
    [b"ctorch._utils\n_rebuild_tensor_v2\n", &tuple(&arguments)[..], b"R"].concat()
}

fn state_dict(entries: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let items: Vec<u8> = entries.iter().flat_map(|(name, value)| [text(name), value.clone()].concat()).collect();
    [b"\x80\x02}(", &items[..], b"u."].concat()
}

fn checkpoint(pickle: &[u8]) -> Vec<u8> {
    zip(&[("x/data.pkl", pickle), ("x/data/0", &[0; 64])])
}

fn open(bytes: &[u8], name: &str) -> Result<Prior, Error> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    Prior::open(&path)
}

fn refused(bytes: &[u8], name: &str, needles: &[&str]) {
    let error = open(bytes, name).unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, Error::Model { .. }), "{message}");
    assert!(message.contains(name) && needles.iter().all(|needle| message.contains(needle)), "{needles:?}: {message}");
}

#[test]
fn what_is_no_checkpoint_is_named() {
    refused(b"", "x.pt", &["neither"]);
    refused(b"GIF89a, or so", "x.pt", &["neither", "safetensors"]);
    refused(b"PK\x03\x04 and nothing more", "x.pt", &["end of a zip archive"]);
    refused(&zip(&[("x/other", b"")]), "x.pt", &["data.pkl"]);
    refused(b"\x80\x04\x95\x00\x00\x00\x00", "network-snapshot.pkl", &["never", "torch.save", "source code"]);
    refused(&[0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20], "x.pt", &["1.6"]);
    refused(&checkpoint(&state_dict(&[("head.bias", tensor(16, 0, &[4], &[1]))])), "x.pt", &["layout", "head.bias"]);
    refused(&checkpoint(b"\x80\x02]."), "x.pt", &["dictionary"]);
    refused(&checkpoint(&state_dict(&[("optimizer", int(3))])), "x.pt", &["optimizer", "ema"]);
}

#[test]
fn nothing_is_executed() {
    for callable in ["os.system", "builtins.eval", "posix.system", "torch.load", "torch._utils._rebuild_qtensor"] {
        let (module, name) = callable.rsplit_once('.').unwrap();
        let pickle = [format!("\u{80}\u{2}c{module}\n{name}\n").chars().map(|c| c as u8).collect(), tuple(&[text("true")]), b"R.".to_vec()];
        refused(&checkpoint(&pickle.concat()), "x.pt", &[callable, "nothing is executed"]);
    }
    // The same through the stack.
    let pickle = [b"\x80\x04".to_vec(), text("os"), text("system"), b"\x93)R.".to_vec()].concat();
    refused(&checkpoint(&pickle), "x.pt", &["os.system"]);
    // Objects, extensions, text opcodes.
    for opcode in [b"\x81", b"\x92", b"\x82", b"P", b"i", b"o"] {
        refused(&checkpoint(&[b"\x80\x02))", &opcode[..], b"."].concat()), "x.pt", &["opcode"]);
    }
}

#[test]
fn sizes_are_checked_before_memory_is_taken() {
    let wrong = |tensor: Vec<u8>, needles: &[&str]| {
        refused(&checkpoint(&state_dict(&[("time_embed.0.weight", tensor)])), "x.pt", needles);
    };
    wrong(tensor(i32::MAX, 0, &[4], &[1]), &["time_embed.0.weight", "larger than its entry of 64 bytes"]);
    wrong(tensor(16, 0, &[i32::MAX, i32::MAX, i32::MAX], &[0, 0, 0]), &["do not fit"]);
    wrong(tensor(16, 0, &[17], &[0]), &["do not fit"]);
    wrong(tensor(16, 15, &[2], &[1]), &["do not fit"]);
    wrong(tensor(16, 0, &[2, 2], &[i32::MAX, 1]), &["do not fit"]);
    wrong(tensor(16, 0, &[-1], &[1]), &["expected a size"]);
    wrong(tensor(16, 0, &[1; 9], &[1; 9]), &["shape"]);
    // A text of 4 GB, a directory of 4 GB, an entry behind the end.
    refused(&checkpoint(b"\x80\x02X\xff\xff\xff\xff."), "x.pt", &["cut off"]);
    refused(&checkpoint(b"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xff."), "x.pt", &["cut off"]);
    let mut long = checkpoint(&state_dict(&[]));
    let end = long.len() - 22;
    long[end + 12..end + 16].fill(0xff);
    refused(&long, "x.pt", &["zip directory"]);
    refused(&[&u64::MAX.to_le_bytes()[..], b"{}"].concat(), "x.safetensors", &["header"]);
    let header = br#"{"a": {"dtype": "F32", "shape": [4611686018427387904, 4], "data_offsets": [0, 0]}}"#;
    refused(&[&(header.len() as u64).to_le_bytes()[..], header].concat(), "x.safetensors", &["`a`", "does not make"]);
}

#[test]
fn nesting_and_cycles_are_harmless() {
    // A million nested tuples, and a list that holds itself.
    let deep = [b"\x80\x02)".to_vec(), vec![0x85; 1_000_000], b".".to_vec()].concat();
    refused(&checkpoint(&deep), "x.pt", &["dictionary"]);
    refused(&checkpoint(b"\x80\x02]q\x00h\x00a."), "x.pt", &["dictionary"]);
    refused(&checkpoint(b"\x80\x02}q\x00X\x03\x00\x00\x00emah\x00s."), "x.pt", &["no dictionary of tensors"]);
    for wrong in [&b"\x80\x02u."[..], b"\x80\x02(", b"\x80\x02h\x05.", b"\x80\x02\x87.", b"\x80\x02}N)a.", b"\x80\x02}(Nu.", b"", b"\x80"] {
        refused(&checkpoint(wrong), "x.pt", &["pickle"]);
    }
}

#[test]
fn weights_that_are_views_are_read() {
    // 4 x 3 of the transpose, at an offset; the error that comes later shows that the tensor was taken.
    let entries = [
        ("time_embed.0.weight", tensor(16, 1, &[4, 3], &[1, 4])),
        ("input_blocks.0.0.weight", tensor(16, 0, &[1, 1, 3, 3], &[9, 9, 3, 1])),
        ("out.2.weight", tensor(16, 0, &[1, 1, 3, 3], &[9, 9, 1, 3])),
    ];
    refused(&checkpoint(&state_dict(&entries)), "x.pt", &["output blocks"]);
}

/// Whatever is damaged, the answer is an error or a network, and it comes.
#[test]
fn damage_anywhere_is_survived() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/made_song_ve.pt");
    let whole = std::fs::read(&source).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.pt");
    std::fs::copy(source.with_extension("json"), folder.path().join("x.json")).unwrap();
    let attempt = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Prior::open(&path)
    };
    assert!(attempt(&whole).is_ok());
    for cut in [0, 1, 3, 100, 4000, whole.len() / 2, whole.len() - 30, whole.len() - 1] {
        assert!(attempt(&whole[..cut]).is_err(), "cut to {cut} bytes");
    }
    // The pickle lies at the start, the directory at the end.
    let mut state = 12345u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % below
    };
    for round in 0..600 {
        let mut bytes = whole.clone();
        for _ in 0..1 + round % 3 {
            let at = if round % 2 == 0 { random(24_000) } else { bytes.len() - 1 - random(12_000) };
            bytes[at] = random(256) as u8;
        }
        match attempt(&bytes) {
            Err(Error::Model { .. } | Error::Mismatch(_)) | Ok(_) => {}
            Err(other) => panic!("{other}"),
        }
    }
}
