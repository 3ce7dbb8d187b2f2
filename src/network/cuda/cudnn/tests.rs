//! Keys and cache without a device; every kind of convolution against a loop in f64 on one.

use super::cache::{Choice, Key};
use super::form::{Form, Layout};
use super::*;

mod device;

fn example() -> Convolution {
    Convolution {
        batch: 2,
        height: 12,
        width: 10,
        inputs: 16,
        outputs: 24,
        kernel: 3,
        stride: 2,
        padding: (0, 1),
        element: Element::Bf16,
        direction: Direction::Transposed,
        input_pitch: 48,
        output_pitch: 24,
    }
}

fn choice() -> Choice {
    Choice {
        form: Form { widened: true, packed_source: false, packed_destination: true },
        engine: 41,
        knobs: vec![(2, 7), (24, -1)],
        text: Some("{\"plan\": \"\u{e9}\"}".into()),
        workspace: 1 << 33,
        milliseconds: 0.125,
    }
}

#[test]
fn a_choice_survives_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let cache = PlanCache::at(&folder.path().join("new"));
    let key = Key::new("a card", 91900, &example(), Epilogue::default());
    assert_eq!(cache.read(&key), None);
    cache.write(&key, &choice()).unwrap();
    assert_eq!(cache.read(&key), Some(choice()));
    let other = Choice { engine: 3, ..choice() };
    cache.write(&key, &other).unwrap();
    assert_eq!(cache.read(&key), Some(other));
    assert_eq!(std::fs::read_dir(folder.path().join("new")).unwrap().count(), 1, "no temporary file stays");
    assert_eq!(PlanCache::none().read(&key), None);
    PlanCache::none().write(&key, &choice()).unwrap();
}

#[test]
fn device_version_and_every_number_of_the_convolution_are_in_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let cache = PlanCache::at(folder.path());
    let c = example;
    cache.write(&Key::new("a card", 91900, &c(), Epilogue::default()), &choice()).unwrap();
    let others = [
        Convolution { batch: 3, ..c() },
        Convolution { height: 14, ..c() },
        Convolution { width: 14, ..c() },
        Convolution { inputs: 8, ..c() },
        Convolution { outputs: 16, ..c() },
        Convolution { kernel: 1, ..c() },
        Convolution { stride: 1, ..c() },
        Convolution { padding: (1, 0), ..c() },
        Convolution { element: Element::F32, ..c() },
        Convolution { direction: Direction::Forward, ..c() },
        Convolution { input_pitch: 16, ..c() },
        Convolution { output_pitch: 32, ..c() },
    ];
    for other in others {
        assert_eq!(cache.read(&Key::new("a card", 91900, &other, Epilogue::default())), None, "{other:?}");
    }
    for epilogue in [(true, None), (false, Some(16)), (false, Some(24))] {
        let epilogue = Epilogue { bias: epilogue.0, residual_pitch: epilogue.1 };
        assert_eq!(cache.read(&Key::new("a card", 91900, &c(), epilogue)), None, "{epilogue:?}");
    }
    assert_eq!(cache.read(&Key::new("another card", 91900, &c(), Epilogue::default())), None);
    assert_eq!(cache.read(&Key::new("a card", 91901, &c(), Epilogue::default())), None);
    assert_eq!(cache.read(&Key::new("a card", 91900, &c(), Epilogue::default())), Some(choice()));
}

#[test]
fn damaged_and_foreign_files_count_as_absent() {
    let folder = tempfile::tempdir().unwrap();
    let cache = PlanCache::at(folder.path());
    let (key, other) = (
        Key::new("a card", 91900, &example(), Epilogue::default()),
        Key::new("another card", 91900, &example(), Epilogue::default()),
    );
    cache.write(&key, &choice()).unwrap();
    let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
    let good = std::fs::read(&file).unwrap();
    let foreign = tempfile::tempdir().unwrap();
    PlanCache::at(foreign.path()).write(&other, &choice()).unwrap();
    let foreign = std::fs::read_dir(foreign.path()).unwrap().next().unwrap().unwrap().path();
    for bad in
        [vec![], good[..good.len() / 2].to_vec(), vec![0xff; 100], b"{}".to_vec(), std::fs::read(foreign).unwrap()]
    {
        std::fs::write(&file, &bad).unwrap();
        assert_eq!(cache.read(&key), None, "{}", String::from_utf8_lossy(&bad));
    }
    cache.write(&key, &choice()).unwrap();
    assert_eq!(cache.read(&key), Some(choice()));
}

#[test]
fn what_is_no_convolution_is_refused() {
    assert!(example().check().is_ok());
    let bad = [
        (Convolution { batch: 0, ..example() }, "zero"),
        (Convolution { stride: 0, ..example() }, "zero"),
        (Convolution { height: 1, ..example() }, "larger"),
        (Convolution { input_pitch: 8, ..example() }, "pitch"),
        (Convolution { outputs: 20, ..example() }, "16 bytes"),
        (Convolution { inputs: 3, element: Element::F32, ..example() }, "16 bytes"),
    ];
    for (convolution, why) in bad {
        let message = convolution.check().unwrap_err().to_string();
        assert!(message.contains(why), "{message}");
    }
}

/// Zeros on the far side of the filter make up for equal padding: both maps are the same, tap by tap.
#[test]
fn a_widened_filter_meets_the_same_pixels() {
    for padding in [(0, 1), (1, 0), (1, 1), (0, 2), (2, 0)] {
        for (stride, height, width) in [(1, 9, 8), (2, 9, 8), (2, 7, 12)] {
            let narrow = Convolution { padding, stride, height, width, ..example() };
            let form = Form { widened: true, packed_source: false, packed_destination: false };
            let wide = form.apply(&narrow);
            assert_eq!(wide.padding.0, wide.padding.1);
            assert_eq!(wide.output_size(), narrow.output_size());
            for (i, tap) in (0..narrow.output_size().0).flat_map(|i| (0..3).map(move |tap| (i, tap))) {
                let pixel = (stride * i + tap) as isize - narrow.padding.0 as isize;
                let wide_tap = tap + form.zeros_before(&narrow);
                assert!(wide_tap < wide.kernel);
                assert_eq!(pixel, (stride * i + wide_tap) as isize - wide.padding.0 as isize);
            }
        }
    }
}

#[test]
fn forms_pack_what_is_pitched_and_widen_what_is_padded_unequally() {
    let plain = Form { widened: false, packed_source: false, packed_destination: false };
    let dense = Convolution { padding: (1, 1), input_pitch: 16, ..example() };
    assert_eq!(Form::all(&dense), [plain]);
    let pitched = Convolution { padding: (1, 1), ..example() };
    // Transposed: the pitched input is what is written.
    assert_eq!(Form::all(&pitched), [Form { packed_destination: true, ..plain }, plain]);
    let forward = Convolution { direction: Direction::Forward, ..pitched };
    assert_eq!(Form::all(&forward), [Form { packed_source: true, ..plain }, plain]);
    let all = Form::all(&example());
    assert_eq!(
        all,
        [Form { widened: true, packed_destination: true, ..plain }, Form { widened: true, ..plain }, plain]
    );
    assert_eq!(all[0].apply(&example()).input_pitch, 16);
    assert_eq!(all[0].apply(&example()).kernel, 4);
}

#[test]
fn parts_of_the_workspace_do_not_overlap() {
    let c = example();
    let form = Form { widened: true, packed_source: true, packed_destination: true };
    let layout = Layout::new(&c, form, 1000);
    assert_eq!(layout.filter, 1024);
    assert_eq!(layout.source, (layout.filter + 24 * 16 * 16 * 2).next_multiple_of(256));
    // Transposed: the source is the output, [2, 6, 5, 24].
    assert_eq!(layout.destination, (layout.source + 2 * 6 * 5 * 24 * 2).next_multiple_of(256));
    assert_eq!(layout.total, layout.destination + 2 * 12 * 10 * 16 * 2);
    let plain = Form { widened: false, packed_source: false, packed_destination: false };
    assert_eq!(Layout::new(&c, plain, 0).total, 0);
}
