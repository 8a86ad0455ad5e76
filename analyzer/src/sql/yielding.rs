//! Queries give way, so that they can be stopped.
//!
//! The engine lets leaves of a plan give way to other tasks. A join makes a stream without end
//! out of leaves that were read long ago, and then nothing gives way: whoever drops the query
//! waits for it all the same, and with every worker busy not even a signal is heard.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;

/// Lets every operator that can give more than it takes give way.
#[derive(Debug)]
pub(crate) struct Yielding;

impl PhysicalOptimizerRule for Yielding {
    fn name(&self) -> &'static str {
        "Yielding"
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        _: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let yielding = plan.transform_up(|plan| {
            // Joins are what has two sides.
            let is_join = plan.children().len() > 1;
            if is_join || plan.name() == "UnnestExec" {
                return Ok(Transformed::yes(Arc::new(CooperativeExec::new(plan)) as _));
            }
            Ok(Transformed::no(plan))
        });
        Ok(yielding?.data)
    }

    fn schema_check(&self) -> bool {
        true
    }
}
