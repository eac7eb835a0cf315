//! `tidegate demo` (being written).
use crate::args::DemoArgs;
use crate::failure::Failure;

pub(crate) async fn run(_args: DemoArgs) -> Result<(), Failure> {
    Err(Failure::internal("not yet"))
}
