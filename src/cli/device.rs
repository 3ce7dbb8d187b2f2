//! The device named on the command line.

use anyhow::Context as _;
use operators::{Device, cuda};

use super::args::DeviceArg;

/// Opens the device; `worth_a_gpu` says whether the job has work for one, which `auto` asks. With it the reason why `auto` does
/// not take a GPU that is there.
pub fn open(device: DeviceArg, worth_a_gpu: bool) -> anyhow::Result<(Device, Option<String>)> {
    match device {
        DeviceArg::Cpu => Ok((Device::Cpu, None)),
        DeviceArg::Cuda(ordinal) => {
            let device = Device::cuda(ordinal).with_context(|| format!("--device cuda:{ordinal}"))?;
            Ok((device, None))
        }
        DeviceArg::Auto if !worth_a_gpu => Ok((Device::Cpu, None)),
        DeviceArg::Auto => match Device::cuda(0) {
            Ok(device) => Ok((device, None)),
            Err(error) => Ok((Device::Cpu, has_driver().then(|| format!("the GPU is not used: {error}")))),
        },
    }
}

/// Without a driver there is no GPU, and nothing to explain.
fn has_driver() -> bool {
    cuda::inventory().first().is_some_and(|driver| driver.found.is_some())
}
