//! The event heap and the stations.

use std::collections::VecDeque;

use super::model::{Demand, Model, ModelError};
use super::result::Simulation;
use crate::arrival::{Arrival, ArrivalError, Plan, Stretch};
use crate::workload::Workload;

/// How closely output is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Detail {
    /// One event for the end of each stage.
    #[default]
    Requests,
    /// One event for each output token besides.
    Tokens,
}

/// Why nothing can be simulated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimulateError {
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The arrival policy needs what the workload does not have.
    #[error(transparent)]
    Arrival(#[from] ArrivalError),
    /// Operations lack what a stage's model multiplies.
    #[error(
        "simulate: stage {stage} needs {needs}, which {missing} of {operations} operations do not \
         have"
    )]
    Missing {
        /// The stage.
        stage: String,
        /// What its model needs.
        needs: &'static str,
        /// Operations without it.
        missing: u64,
        /// Operations in all.
        operations: u64,
    },
    /// More operations than an event can name.
    #[error("simulate: the workload has more than 2^32 operations")]
    TooMany,
}

/// Replays a workload in virtual time.
///
/// # Errors
/// See [`SimulateError`].
pub fn simulate(
    workload: &Workload,
    model: &Model,
    arrival: Arrival,
    detail: Detail,
) -> Result<Simulation, SimulateError> {
    model.check()?;
    let plan = Plan::new(workload, arrival)?;
    let count = u32::try_from(workload.operations.len()).map_err(|_| SimulateError::TooMany)?;
    let demands = demands(workload, model)?;
    let mut run = Run {
        plan: &plan,
        demands: &demands,
        heap: Heap::default(),
        stations: model.stages.iter().map(Station::of).collect(),
        left: vec![0; count as usize],
        out: Simulation::new(workload, model),
        detail,
        admitted: 0,
    };
    run.all();
    Ok(run.out.finish(&plan))
}

/// Of each stage, of each operation.
fn demands(workload: &Workload, model: &Model) -> Result<Vec<Vec<Demand>>, SimulateError> {
    let mut demands = Vec::with_capacity(model.stages.len());
    for stage in &model.stages {
        let found: Vec<Option<Demand>> =
            workload.operations.iter().map(|operation| stage.service.demand(operation)).collect();
        let missing = found.iter().filter(|demand| demand.is_none()).count() as u64;
        if missing > 0 {
            return Err(SimulateError::Missing {
                stage: stage.stage.clone(),
                needs: match stage.service {
                    super::model::Service::Recorded => "a recorded duration",
                    super::model::Service::Linear { .. } => "the lengths of input and output",
                },
                missing,
                operations: workload.operations.len() as u64,
            });
        }
        demands.push(found.into_iter().flatten().collect());
    }
    Ok(demands)
}

/// Servers of a stage and who waits for one.
struct Station {
    free: u32,
    queue_max: usize,
    queue: VecDeque<u32>,
}

impl Station {
    fn of(stage: &super::model::StageModel) -> Self {
        Self {
            free: stage.slots.unwrap_or(u32::MAX),
            queue_max: stage.queue_max.map_or(usize::MAX, |max| max as usize),
            queue: VecDeque::new(),
        }
    }
}

struct Run<'a> {
    plan: &'a Plan,
    demands: &'a [Vec<Demand>],
    heap: Heap,
    stations: Vec<Station>,
    /// Output tokens still to come, of the stage an operation is in.
    left: Vec<u32>,
    out: Simulation,
    detail: Detail,
    /// Operations that have begun, of those that a closed policy lets in one by one.
    admitted: usize,
}

impl Run<'_> {
    fn all(&mut self) {
        let mut origin_ns = 0;
        for stretch in &self.plan.stretches {
            origin_ns = self.stretch(stretch, origin_ns);
        }
    }

    /// Runs the operations between two barriers; gives the time of the last end.
    fn stretch(&mut self, stretch: &Stretch, origin_ns: i64) -> i64 {
        // Arrivals are known beforehand and in order, so they need not go through the heap.
        let mut arrivals = stretch.fixed.iter().peekable();
        self.admitted = stretch.first;
        for _ in 0..stretch.closed_slots {
            self.admit(stretch, origin_ns);
        }
        let mut last_ns = origin_ns;
        loop {
            let arrival = arrivals.peek().map(|(due_ns, operation)| Event {
                time_ns: origin_ns + due_ns,
                place: place(ARRIVAL, *operation),
            });
            let event = match (arrival, self.heap.first()) {
                (None, None) => return last_ns,
                (Some(arrival), None) => arrival,
                (None, Some(event)) => event,
                (Some(arrival), Some(event)) => arrival.min(event),
            };
            if Some(event) == arrival {
                let _ = arrivals.next();
                self.begin(event, stretch);
            } else {
                self.handle(event, stretch);
            }
            last_ns = last_ns.max(event.time_ns);
        }
    }

    /// Lets the next operation of a closed policy in.
    fn admit(&mut self, stretch: &Stretch, time_ns: i64) {
        if self.admitted < stretch.end {
            let operation = self.admitted as u32;
            self.admitted += 1;
            self.heap.push(Event { time_ns, place: place(ARRIVAL, operation) });
        }
    }

    fn begin(&mut self, event: Event, stretch: &Stretch) {
        let operation = event.operation();
        self.out.arrive(operation, event.time_ns);
        self.out.events += 1;
        self.enter(0, operation, event.time_ns, stretch);
    }

    /// Handles the first event of the heap.
    fn handle(&mut self, event: Event, stretch: &Stretch) {
        let operation = event.operation();
        if event.step() == ARRIVAL {
            self.heap.pop();
            return self.begin(event, stretch);
        }
        self.out.events += 1;
        let stage = event.step() as usize - 1;
        let Some(left) = self.left.get_mut(operation as usize) else { return self.heap.pop() };
        if *left > 0 {
            *left -= 1;
            let step_ns = self.demands.get(stage).and_then(|d| d.get(operation as usize));
            let step_ns = step_ns.map_or(0, |demand| demand.step_ns);
            return self.heap.replace_first(Event { time_ns: event.time_ns + step_ns, ..event });
        }
        self.heap.pop();
        self.leave(stage, operation, event.time_ns, stretch);
    }

    /// An operation comes to a stage.
    fn enter(&mut self, stage: usize, operation: u32, time_ns: i64, stretch: &Stretch) {
        let Some(station) = self.stations.get_mut(stage) else { return };
        if station.free > 0 {
            station.free -= 1;
            self.serve(stage, operation, time_ns);
        } else if station.queue.len() < station.queue_max {
            station.queue.push_back(operation);
        } else {
            self.out.refuse(operation, time_ns);
            self.ended(operation, time_ns, stretch);
        }
    }

    fn serve(&mut self, stage: usize, operation: u32, time_ns: i64) {
        let demand = self.demands.get(stage).and_then(|d| d.get(operation as usize));
        let Some(demand) = demand.copied() else { return };
        self.out.serve(stage, operation, time_ns, demand);
        let first_event_ns = match self.detail {
            Detail::Tokens if demand.steps > 0 => {
                if let Some(left) = self.left.get_mut(operation as usize) {
                    *left = demand.steps;
                }
                demand.first_ns
            }
            _ => demand.total_ns(),
        };
        let step = stage as u32 + 1;
        self.heap.push(Event { time_ns: time_ns + first_event_ns, place: place(step, operation) });
    }

    /// An operation has been served at a stage.
    fn leave(&mut self, stage: usize, operation: u32, time_ns: i64, stretch: &Stretch) {
        let next = self.stations.get_mut(stage).and_then(|station| {
            let next = station.queue.pop_front();
            station.free += u32::from(next.is_none() && station.free < u32::MAX);
            next
        });
        if let Some(next) = next {
            self.serve(stage, next, time_ns);
        }
        if stage + 1 < self.stations.len() {
            self.enter(stage + 1, operation, time_ns, stretch);
        } else {
            self.out.complete(operation, time_ns);
            self.ended(operation, time_ns, stretch);
        }
    }

    /// An operation has ended, well or not: whoever waited for it may begin.
    fn ended(&mut self, operation: u32, time_ns: i64, stretch: &Stretch) {
        if stretch.closed_slots > 0 {
            return self.admit(stretch, time_ns);
        }
        for (next, think_ns) in self.plan.after(operation) {
            self.heap.push(Event { time_ns: time_ns + think_ns, place: place(ARRIVAL, next) });
        }
    }
}

/// Something that happens. The order of the fields is the order of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    time_ns: i64,
    /// Step (0: arrival, n: the end of stage n - 1) and operation, the step first.
    place: u64,
}

const ARRIVAL: u32 = 0;

const fn place(step: u32, operation: u32) -> u64 {
    (step as u64) << 32 | operation as u64
}

impl Event {
    const fn operation(self) -> u32 {
        self.place as u32
    }

    const fn step(self) -> u32 {
        (self.place >> 32) as u32
    }
}

/// A binary heap with the earliest event first. The commonest thing that happens, the next token
/// of a stream, replaces the first event instead of taking it out and putting another in.
#[derive(Debug, Default)]
struct Heap {
    events: Vec<Event>,
}

impl Heap {
    fn first(&self) -> Option<Event> {
        self.events.first().copied()
    }

    fn push(&mut self, event: Event) {
        self.events.push(event);
        let mut at = self.events.len() - 1;
        while at > 0 {
            let parent = (at - 1) / 2;
            if self.events[parent] <= self.events[at] {
                return;
            }
            self.events.swap(parent, at);
            at = parent;
        }
    }

    fn pop(&mut self) {
        if let Some(last) = self.events.pop()
            && !self.events.is_empty()
        {
            self.replace_first(last);
        }
    }

    fn replace_first(&mut self, event: Event) {
        let events = self.events.as_mut_slice();
        let mut at = 0;
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            if left >= events.len() {
                break;
            }
            let child =
                if right < events.len() && events[right] < events[left] { right } else { left };
            if event <= events[child] {
                break;
            }
            events[at] = events[child];
            at = child;
        }
        if let Some(place) = events.get_mut(at) {
            *place = event;
        }
    }
}
