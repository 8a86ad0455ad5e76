//! A replay in virtual time as a run: the same spans as a real one has, at times that a model made.
//!
//! Every operation is a trace whose root links to what it repeats, with a span for each stage from
//! when a slot was free for it. So whatever reads runs reads predictions too: breakdowns, SQL,
//! reports, and comparisons with the replay that was then really run.

use retake_recorder::Dispatcher;
use retake_schemas::attributes::{Attributes, Value};
use retake_schemas::convention;
use retake_schemas::event::{
    EventBody, Level, SpanClosed, SpanOpened, Status, Token, TokensSource, Usage,
};
use retake_schemas::id::{SpanKey, TraceId};

use super::engine::Detail;
use super::model::{Model, StageModel};
use super::result::{NEVER, Outcome, Simulation, get};
use crate::plan::StageSource;
use crate::target::{Operation, words};
use crate::workload::Workload;

/// What was simulated, to be written down.
#[derive(Debug, Clone, Copy)]
pub struct Simulated<'a> {
    /// The rows.
    pub simulation: &'a Simulation,
    /// What was replayed.
    pub workload: &'a Workload,
    /// What stood in for the stages.
    pub model: &'a Model,
    /// Whether to write every token down, or only when the first came.
    pub detail: Detail,
}

impl Simulated<'_> {
    /// Emits its events; virtual time 0 becomes `origin_unix_ns`. Operations that never began have
    /// none.
    ///
    /// `written` is told how many operations are. The dispatcher should block when its journal is
    /// full: this goes as fast as it can.
    pub fn record(&self, dispatcher: &Dispatcher, origin_unix_ns: i64, written: &dyn Fn(u64)) {
        for (at, operation) in self.workload.operations.iter().enumerate() {
            if get(&self.simulation.arrived_ns, at) != NEVER {
                Trace { simulated: *self, dispatcher, origin_unix_ns, at, operation }.record();
            }
            if at % PROGRESS_STEP == 0 {
                written(at as u64);
            }
        }
        written(self.workload.operations.len() as u64);
    }
}

/// One operation's events.
struct Trace<'a> {
    simulated: Simulated<'a>,
    dispatcher: &'a Dispatcher,
    origin_unix_ns: i64,
    /// Its row.
    at: usize,
    operation: &'a Operation,
}

impl Trace<'_> {
    fn record(&self) {
        let simulation = self.simulated.simulation;
        let arrived_ns = get(&simulation.arrived_ns, self.at);
        let root =
            SpanKey { trace_id: TraceId::generate(), span_id: self.dispatcher.new_span_id() };
        let (kind, stage, name) = words(&self.operation.kind);
        let opened = opened(root, None, name, self.attributes(kind, stage, arrived_ns));
        self.emit(arrived_ns, &EventBody::SpanOpened(Box::new(opened)));
        let last = self.stages(root, stage);
        if let Some((span, served_ns)) = last {
            self.tokens(span, served_ns);
        }
        // What never ended is a workload whose links are wrong; its span is left open.
        let ended_ns = get(&simulation.ended_ns, self.at);
        let (status, message) = match simulation.outcome(self.at) {
            Outcome::NotBegun | Outcome::Running => return,
            Outcome::Ok => (Status::Ok, None),
            Outcome::Refused => (Status::Error, Some("a queue was full".to_owned())),
        };
        self.close(root, ended_ns, status, message);
    }

    /// A span for each stage that served it, but for one that is the operation itself. Gives the span
    /// of the model's last stage, whose output is streamed, and when it was served.
    fn stages(&self, root: SpanKey, root_stage: &str) -> Option<(SpanKey, i64)> {
        let Simulated { simulation, model, .. } = self.simulated;
        let mut came_ns = get(&simulation.arrived_ns, self.at);
        let mut last = None;
        for (number, stage) in model.stages.iter().enumerate() {
            let of = |columns: &[Vec<i64>]| columns.get(number).map_or(NEVER, |c| get(c, self.at));
            let served_ns = of(&simulation.served_ns);
            if served_ns == NEVER {
                return None;
            }
            let ended_ns = served_ns + of(&simulation.service_ns);
            let mut span = root;
            if stage.stage != root_stage {
                span.span_id = self.dispatcher.new_span_id();
                let attributes = self.of_stage(stage, served_ns - came_ns);
                let opened = opened(span, Some(root), &stage.stage, attributes);
                self.emit(served_ns, &EventBody::SpanOpened(Box::new(opened)));
                self.close(span, ended_ns, Status::Ok, None);
            }
            came_ns = ended_ns;
            last = Some((span, served_ns));
        }
        last
    }

    /// What was streamed, and how much it was.
    fn tokens(&self, span: SpanKey, served_ns: i64) {
        let Simulated { simulation, model, detail, .. } = self.simulated;
        let count = |tokens: Option<u64>| tokens.and_then(|tokens| i64::try_from(tokens).ok());
        let shape = &self.operation.shape;
        let (input, output) = (count(shape.tokens_in), count(shape.tokens_out));
        if input.is_none() && output.is_none() {
            return;
        }
        let first_ns = get(&simulation.first_token_ns, self.at);
        let demand = model.stages.last().and_then(|stage| stage.service.demand(self.operation));
        if let Some(demand) = demand.filter(|_| output.is_some_and(|count| count > 0)) {
            debug_assert_eq!(served_ns + demand.first_ns, first_ns);
            let steps = if detail == Detail::Tokens { demand.steps } else { 0 };
            for index in 0..=steps {
                let time_ns = first_ns + i64::from(index) * demand.step_ns;
                self.emit(time_ns, &EventBody::Token(Token { span, index, count: 1 }));
            }
        }
        // As many as were recorded: nobody counted anew.
        let usage = Usage {
            span,
            source: TokensSource::Estimate,
            input,
            output,
            cache_read: None,
            cache_write: None,
            reasoning: None,
        };
        self.emit(first_ns, &EventBody::Usage(usage));
    }

    fn attributes(&self, kind: &str, stage: &str, arrived_ns: i64) -> Attributes {
        // Of an operation whose stages are not all the same it says the least.
        let mut sources = self.simulated.model.stages.iter().map(|stage| self.source(stage));
        let first = sources.next().unwrap_or(StageSource::Model);
        let source = if sources.all(|it| it == first) { first } else { StageSource::Model };
        let text = |text: &str| Value::Str(text.to_owned());
        let mut attributes: Attributes = vec![
            (convention::KIND.into(), text(kind)),
            (convention::STAGE.into(), text(stage)),
            (convention::OPERATION_KIND.into(), text(&self.operation.kind)),
            (convention::DUE_UNIX_NS.into(), Value::Int(self.origin_unix_ns + arrived_ns)),
            (convention::STAGE_SOURCE.into(), text(source.as_str())),
        ];
        let shape = &self.operation.shape;
        let named =
            [("gen_ai.conversation.id", &shape.session), ("gen_ai.request.model", &shape.model)];
        for (name, value) in named {
            attributes.extend(value.as_deref().map(|value| (name.into(), text(value))));
        }
        if let Some(source) = &self.operation.source {
            attributes.extend([
                (convention::SOURCE_RUN.into(), text(source.run_id.as_str())),
                (convention::SOURCE_TRACE.into(), Value::Str(source.trace_id.to_string())),
                (convention::SOURCE_SPAN.into(), Value::Str(source.span_id.to_string())),
            ]);
        }
        attributes
    }

    fn of_stage(&self, stage: &StageModel, waited_ns: i64) -> Attributes {
        let kind = match stage.stage.as_str() {
            "llm" => "llm",
            "embed" => "embedding",
            "retrieve" | "search" => "retriever",
            "rerank" => "reranker",
            _ => "chain",
        };
        vec![
            (convention::KIND.into(), Value::Str(kind.to_owned())),
            (convention::STAGE.into(), Value::Str(stage.stage.clone())),
            (convention::STAGE_SOURCE.into(), Value::Str(self.source(stage).as_str().to_owned())),
            (convention::QUEUE_NS.into(), Value::Int(waited_ns)),
        ]
    }

    fn source(&self, stage: &StageModel) -> StageSource {
        stage.service.source(!self.operation.input.is_null())
    }

    fn close(&self, span: SpanKey, time_ns: i64, status: Status, message: Option<String>) {
        let closed = SpanClosed { span, busy_ns: None, status, message };
        self.emit(time_ns, &EventBody::SpanClosed(closed));
    }

    fn emit(&self, time_ns: i64, body: &EventBody) {
        self.dispatcher.emit_at(self.origin_unix_ns + time_ns, body);
    }
}

fn opened(
    span: SpanKey,
    parent: Option<SpanKey>,
    name: &str,
    attributes: Attributes,
) -> SpanOpened {
    SpanOpened {
        span,
        parent: parent.map(|parent| parent.span_id),
        name: name.to_owned(),
        target: "retake_replay".to_owned(),
        level: Level::Info,
        source_file: None,
        source_line: None,
        thread: None,
        attributes,
    }
}

/// Operations between two reports of how far it is.
const PROGRESS_STEP: usize = 1_024;
