//! What operators watch on the API.

use metrics::{Counter, Unit, counter, describe_counter};

use crate::error::Plane;
use crate::routes::Operation;

const CLASSES: [&str; 3] = ["2xx", "4xx", "5xx"];

/// Requests by operation and class of status; requests that are no operation, or more than
/// their caller may make, are not counted there.
pub(crate) struct ApiMetrics {
    requests: Vec<[Counter; CLASSES.len()]>,
    throttled_control: Counter,
    throttled_data: Counter,
}

impl ApiMetrics {
    pub(crate) fn register() -> Self {
        describe_counter!("api_requests_total", Unit::Count, "REST requests answered");
        describe_counter!(
            "api_logins_total",
            Unit::Count,
            "Tokens of OpenID Connect providers that people have shown, by what came of it"
        );
        counter!("api_logins_total", "result" => "ok").increment(0);
        let of = |operation: &Operation| {
            let name = operation.name();
            CLASSES
                .map(|class| counter!("api_requests_total", "operation" => name, "status" => class))
        };
        describe_counter!(
            "api_throttled_total",
            Unit::Count,
            "REST requests beyond the rate of their caller"
        );
        let throttled = |plane| counter!("api_throttled_total", "plane" => plane);
        Self {
            requests: Operation::ALL.iter().map(of).collect(),
            throttled_control: throttled("control"),
            throttled_data: throttled("data"),
        }
    }

    pub(crate) fn throttled(&self, plane: Plane) {
        match plane {
            Plane::Control => self.throttled_control.increment(1),
            Plane::Data | Plane::Credentials => self.throttled_data.increment(1),
        }
    }

    pub(crate) fn answered(&self, operation: Operation, status: u16) {
        let class = match status {
            ..400 => 0,
            400..500 => 1,
            _ => 2,
        };
        self.requests[operation as usize][class].increment(1);
    }
}
