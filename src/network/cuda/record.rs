//! Work written down before it can run: what is computed from which buffers. Then every buffer gets its place, every convolution
//! its shape, and the whole is captured as one CUDA graph.

use std::cell::Cell;
use std::rc::Rc;

use operators::cuda::Gpu;

use super::Precision;
use super::conv::{Request, Sums};
use super::launch::Launch;
use super::memory::{Layout, Room, Rooms};
use super::tile::SHARED_TILES;
use super::tune::Tuner;
use crate::Result;

/// Addresses of the rooms.
pub(super) struct Places {
    base: u64,
    layout: Layout,
}

impl Places {
    pub(super) fn new(base: u64, layout: Layout) -> Self {
        Self { base, layout }
    }

    pub(super) fn at(&self, room: Room) -> u64 {
        self.base + self.layout.offset(room) as u64
    }
}

type Start = Box<dyn Fn(&Gpu) -> Result<()> + Send + Sync>;

/// Something that runs on the stream.
pub(super) enum Task {
    Kernel(Launch),
    Other(Start),
}

impl Task {
    pub(super) fn name(&self) -> String {
        match self {
            Task::Kernel(launch) => launch.name().into(),
            Task::Other(_) => "attention".into(),
        }
    }

    pub(super) fn run(&self, gpu: &Gpu) -> Result<()> {
        match self {
            Task::Kernel(launch) => launch.run(gpu),
            Task::Other(run) => run(gpu),
        }
    }
}

type Build = Box<dyn FnOnce(&Places) -> Result<Task>>;

enum Work {
    Fixed(Build),
    Convolution(Box<Request>),
}

/// The work in order.
#[derive(Default)]
pub(super) struct Recording {
    pub(super) rooms: Rooms,
    works: Vec<Work>,
}

impl Recording {
    pub(super) fn len(&self) -> usize {
        self.works.len()
    }

    /// A buffer.
    pub(super) fn room(&mut self, bytes: usize) -> Room {
        self.rooms.add(bytes)
    }

    /// Work that touches `rooms`.
    pub(super) fn push(&mut self, rooms: &[Room], build: impl FnOnce(&Places) -> Result<Task> + 'static) {
        for room in rooms {
            self.rooms.touch(*room, self.works.len());
        }
        self.works.push(Work::Fixed(Box::new(build)));
    }

    /// A kernel that touches `rooms`.
    pub(super) fn kernel(&mut self, rooms: &[Room], build: impl FnOnce(&Places) -> Launch + 'static) {
        self.push(rooms, move |places| Ok(Task::Kernel(build(places))));
    }

    /// A convolution.
    pub(super) fn convolution(&mut self, request: Request) {
        let finish = &request.finish;
        let mut touched: Vec<Room> = request.segments.iter().map(|s| s.room).collect();
        touched.push(finish.out);
        touched.extend(finish.residual.map(|(room, ..)| room));
        touched.extend(finish.sums.as_ref().map(|sums| sums.room));
        if let Some(through) = &finish.through {
            touched.push(through.coefficients);
            touched.extend(through.x.iter().flatten().map(|(room, _)| *room));
        }
        for room in touched {
            self.rooms.touch(room, self.works.len());
        }
        self.works.push(Work::Convolution(Box::new(request)));
    }

    /// Room for the sums over pixels of an image of that many channels, whoever makes them.
    pub(super) fn sums(&mut self, images: usize, (height, width): (usize, usize), channels: usize) -> Sums {
        // The most rows any kernel makes: one for each 8x8 tile, and where a sum is shared, up to 8 for each.
        // The widest tiles are 16 x 16 pixels, and one that hangs over has as many rows as the others.
        let tiles = 4 * height.div_ceil(16) * width.div_ceil(16);
        let rows = tiles.max((8 * tiles).min(2 * SHARED_TILES));
        Sums { room: self.room(images * rows * channels * 8), rows: Rc::new(Cell::new(0)) }
    }

    /// Turns the work into tasks, in order. Convolutions come first because the others ask how many rows of sums they make.
    pub(super) fn build(
        self,
        gpu: &Gpu,
        places: &Places,
        precision: Precision,
        tuner: &Tuner<'_>,
    ) -> Result<Vec<Task>> {
        let convolutions = self.works.iter().filter_map(|work| match work {
            Work::Convolution(request) => Some(&**request),
            Work::Fixed(_) => None,
        });
        tuner.compile(gpu, convolutions, precision)?;
        let mut tasks: Vec<Option<Task>> = Vec::with_capacity(self.works.len());
        let mut rest = Vec::new();
        for (at, work) in self.works.into_iter().enumerate() {
            match work {
                Work::Convolution(request) => {
                    let (launch, rows) = tuner.choose(gpu, &request, places, precision)?;
                    if let Some(sums) = &request.finish.sums {
                        sums.rows.set(rows);
                    }
                    tasks.push(Some(Task::Kernel(launch)));
                }
                Work::Fixed(build) => {
                    tasks.push(None);
                    rest.push((at, build));
                }
            }
        }
        for (at, build) in rest {
            tasks[at] = Some(build(places)?);
        }
        Ok(tasks.into_iter().flatten().collect())
    }
}
