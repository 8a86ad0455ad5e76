//! What each event of a log waits for.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::log::Log;

/// An event by number: `2 n` is the start of span `n`, `2 n + 1` its end; facts come after all spans.
pub(super) type EventId = u32;

/// Events of a log, and what each waits for.
#[derive(Debug, Default)]
pub(super) struct Causes {
    /// Of each event: the event it follows, and how long after it, ns. Without one it happens so long
    /// after the first event of the log.
    pub(super) after: Vec<(Option<EventId>, i64)>,
    /// Of each event: its trace, by number. No event waits for one of another trace.
    pub(super) trace: Vec<u32>,
    /// How many traces there are; the last one is of what stands outside any.
    pub(super) traces: u32,
}

impl Causes {
    pub(super) fn of(log: &Log) -> Self {
        let mut finding = Finding::new(log);
        finding.starts();
        finding.ends();
        finding.facts();
        finding.causes
    }
}

struct Finding<'a> {
    log: &'a Log,
    first_ns: i64,
    causes: Causes,
    spans: HashMap<(&'a str, &'a str), usize>,
    /// Children of each span, in order of their starts.
    children: HashMap<usize, Vec<usize>>,
    /// Spans without a parent in the log.
    roots: Vec<usize>,
}

impl<'a> Finding<'a> {
    fn new(log: &'a Log) -> Self {
        let mut spans = HashMap::with_capacity(log.spans.len());
        for (number, span) in log.spans.iter().enumerate() {
            // Of two with one name the first is the one that others mean.
            spans.entry((span.trace_id.as_str(), span.span_id.as_str())).or_insert(number);
        }
        let mut order: Vec<usize> = (0..log.spans.len()).collect();
        order.sort_by_key(|number| (log.spans[*number].start_unix_ns, *number));
        let (mut children, mut roots) = (HashMap::<usize, Vec<usize>>::new(), Vec::new());
        for number in order {
            let span = &log.spans[number];
            let parent = span.parent_span_id.as_deref();
            let parent = parent.and_then(|id| spans.get(&(span.trace_id.as_str(), id)).copied());
            match parent {
                // A span that names itself, or one that came later, is nobody's cause.
                Some(parent)
                    if (log.spans[parent].start_unix_ns, parent) < (span.start_unix_ns, number) =>
                {
                    children.entry(parent).or_default().push(number);
                }
                _ => roots.push(number),
            }
        }
        let causes = Causes::default();
        Self { log, first_ns: log.first_unix_ns(), causes, spans, children, roots }
    }

    fn start_ns(&self, span: usize) -> i64 {
        self.log.spans.get(span).map_or(0, |span| span.start_unix_ns - self.first_ns)
    }

    fn end_ns(&self, span: usize) -> i64 {
        let duration = self.log.spans.get(span).map_or(0, |span| span.duration_ns);
        self.start_ns(span) + duration
    }

    /// A root begins when it is due; a child when the sibling that ended last before it had ended,
    /// or, if none had, when its parent had begun.
    fn starts(&mut self) {
        let mut traces: HashMap<&str, u32> = HashMap::new();
        for span in &self.log.spans {
            let next = traces.len() as u32;
            let trace = *traces.entry(span.trace_id.as_str()).or_insert(next);
            self.causes.trace.extend([trace, trace]);
        }
        self.causes.traces = traces.len() as u32 + 1;
        self.causes.after = vec![(None, 0); 2 * self.log.spans.len()];
        for root in std::mem::take(&mut self.roots) {
            self.set(start_of(root), None, self.start_ns(root));
        }
        for (parent, children) in &self.children {
            let mut running: BinaryHeap<Reverse<(i64, usize)>> = BinaryHeap::new();
            let mut ended: Option<(i64, usize)> = None;
            let mut found = Vec::with_capacity(children.len());
            for child in children {
                let start_ns = self.start_ns(*child);
                while let Some(Reverse((end_ns, sibling))) = running.peek().copied()
                    && end_ns <= start_ns
                {
                    running.pop();
                    ended = ended.max(Some((end_ns, sibling)));
                }
                found.push(match ended {
                    Some((end_ns, sibling)) => (*child, end_of(sibling), start_ns - end_ns),
                    None => (*child, start_of(*parent), start_ns - self.start_ns(*parent)),
                });
                running.push(Reverse((self.end_ns(*child), *child)));
            }
            for (child, cause, pause_ns) in found {
                if let Some(after) = self.causes.after.get_mut(start_of(child) as usize) {
                    *after = (Some(cause), pause_ns);
                }
            }
        }
    }

    /// A span ends when the child that ended last before it had ended, or when its own work is done.
    fn ends(&mut self) {
        for span in 0..self.log.spans.len() {
            let end_ns = self.end_ns(span);
            let children = self.children.get(&span).map_or(&[][..], Vec::as_slice);
            let within = children.iter().map(|child| (self.end_ns(*child), *child));
            let last = within.filter(|(child_end_ns, _)| *child_end_ns <= end_ns).max();
            match last {
                Some((child_end_ns, child)) => {
                    self.set(end_of(span), Some(end_of(child)), end_ns - child_end_ns);
                }
                None => self.set(end_of(span), Some(start_of(span)), end_ns - self.start_ns(span)),
            }
        }
    }

    /// What a span said comes after what it said before, the first after its start.
    fn facts(&mut self) {
        let log = self.log;
        let tokens = log
            .tokens
            .iter()
            .map(|row| (Some((row.trace_id.as_str(), row.span_id.as_str())), row.time_unix_ns));
        let events = log
            .events
            .iter()
            .map(|row| (row.trace_id.as_deref().zip(row.span_id.as_deref()), row.time_unix_ns));
        let documents = log
            .documents
            .iter()
            .map(|row| (Some((row.trace_id.as_str(), row.span_id.as_str())), row.time_unix_ns));
        let facts: Vec<_> = tokens.chain(events).chain(documents).collect();
        let first_fact = self.causes.after.len() as u32;
        let outside = self.causes.traces - 1;
        self.causes.after.resize(self.causes.after.len() + facts.len(), (None, 0));
        self.causes.trace.resize(self.causes.after.len(), outside);
        let mut order: Vec<usize> = (0..facts.len()).collect();
        order.sort_by_key(|fact| facts.get(*fact).map(|(_, time)| (*time, *fact)));
        // The last thing that each span did so far, and when.
        let mut last: HashMap<usize, (EventId, i64)> = HashMap::new();
        for fact in order {
            let Some((span, time_ns)) = facts.get(fact) else { continue };
            let (event, time_ns) = (first_fact + fact as u32, time_ns - self.first_ns);
            let span = span.and_then(|key| self.spans.get(&key).copied());
            let Some(span) = span else {
                self.set(event, None, time_ns);
                continue;
            };
            let begun = (start_of(span), self.start_ns(span));
            let (cause, cause_ns) = last.get(&span).copied().unwrap_or(begun);
            if let Some(trace) = self.causes.trace.get(start_of(span) as usize).copied()
                && let Some(own) = self.causes.trace.get_mut(event as usize)
            {
                *own = trace;
            }
            if cause_ns <= time_ns {
                self.set(event, Some(cause), time_ns - cause_ns);
            } else {
                // Said before its span began, by another clock.
                self.set(event, None, time_ns);
            }
            last.insert(span, (event, time_ns));
        }
    }

    fn set(&mut self, event: EventId, cause: Option<EventId>, pause_ns: i64) {
        if let Some(after) = self.causes.after.get_mut(event as usize) {
            *after = (cause, pause_ns);
        }
    }
}

pub(super) const fn start_of(span: usize) -> EventId {
    2 * span as u32
}

pub(super) const fn end_of(span: usize) -> EventId {
    2 * span as u32 + 1
}
