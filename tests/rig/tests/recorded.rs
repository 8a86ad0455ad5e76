//! The app under retake's Layer: what its run says, against what its service and rig say.
use retake_recorder::{RecorderBuilder, RunReader, Store};
use retake_schemas::event::RunStatus;
use retake_schemas::tables::{EventRow, SpanRow};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;

#[test]
fn probe() {
    let folder = tempfile::tempdir().unwrap();
    let service = retake_rig::service::Service::start().unwrap();
    let store = Store::create(folder.path()).unwrap();
    let recorder = RecorderBuilder::new("rig", "app").start(&store).unwrap();
    let run_id = recorder.run_id().clone();
    let layer = recorder.layer().with_filter(LevelFilter::INFO);
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer)).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let said = runtime.block_on(retake_rig::run(service.base_url()));
    drop(runtime);
    println!("{said:#?}\n{:?}", service.counted());
    println!("{:?}", recorder.finish(RunStatus::Finished));
    let reader = RunReader::open(&store, &run_id).unwrap();
    for s in reader.rows::<SpanRow>().unwrap() {
        println!("{} {} <- {:?} {} [{}/{}] op={:?} {} et={:?} em={:?} prov={:?} model={:?}/{:?} stream={:?} in={:?} out={:?} cr={:?} cw={:?} re={:?} src={} counted={} call={:?} agent={:?} tool={:?} flags={:?} target={:?} in_ref={:?} dur={} ttft={:?} attrs={:?}\n", s.trace_id, s.span_id, s.parent_span_id, s.name, s.kind, s.stage, s.operation, s.status, s.error_type, s.error_message, s.provider, s.model_request, s.model_response, s.stream, s.input_tokens, s.output_tokens, s.cache_read_tokens, s.cache_write_tokens, s.reasoning_tokens, s.tokens_source, s.tokens_counted, s.is_call, s.agent_name, s.tool_name, s.flags, s.target, s.input_ref, s.duration_ns, s.ttft_ns, s.attributes);
    }
    for e in reader.rows::<EventRow>().unwrap() {
        println!("{:?}", e);
    }
}
