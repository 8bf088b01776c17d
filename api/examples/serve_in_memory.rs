//! Serves the API over a node in memory, for trying it with boto3 or the `aws` CLI:
//!
//! ```sh
//! cargo run -p api --example serve_in_memory -- 127.0.0.1:8080
//! AWS_ACCESS_KEY_ID=AKIATEST AWS_SECRET_ACCESS_KEY=test-secret AWS_DEFAULT_REGION=us-east-1 \
//!     aws --endpoint-url http://127.0.0.1:8080 iot list-things
//! ```

#[path = "../tests/it/memory.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "it belongs to the tests, which use more of it")]
mod memory;

#[tokio::main]
async fn main() {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let (issuer, authority) = memory::authority();
    let router = api::router(memory::Memory::default(), memory::config(issuer));
    let listener = tokio::net::TcpListener::bind(&address).await.expect("the address is free");
    println!("{authority}serving on {}", listener.local_addr().expect("it is bound"));
    axum::serve(listener, router).await.expect("the listener stays open");
}
