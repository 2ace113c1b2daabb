//! Service discovery in terminals: services register, a gateway follows them and picks.
//!
//! ```text
//! cargo run --release -p quorate-client --example discovery -- service 10.0.0.1:80
//! cargo run --release -p quorate-client --example discovery -- gateway --picker least
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what happens")]

use std::collections::VecDeque;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use quorate_client::discovery::{
    LeastConnections, Picked, Picker, Random, Resolver, RoundRobin, register,
};
use quorate_client::{Client, ClientConfig, Error};

#[derive(Parser)]
#[command(about = "Service discovery: run `service` in some terminals and `gateway` in another")]
struct Arguments {
    /// Where the members listen.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "127.0.0.1:2379",
        global = true
    )]
    endpoints: Vec<String>,
    /// What the service is called.
    #[arg(long, default_value = "/my-service/web", global = true)]
    name: String,
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// Registers an address until ctrl-C.
    Service {
        /// Where the service would listen.
        address: String,
        /// How long after a crash it stays on the list, in seconds.
        #[arg(long, default_value_t = 5)]
        ttl: i64,
    },
    /// Follows the services and says where each connection would go.
    Gateway {
        /// How to choose.
        #[arg(long, value_enum, default_value = "round-robin")]
        picker: Choice,
        /// The pause between two connections, in milliseconds.
        #[arg(long, default_value_t = 1000)]
        every_ms: u64,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Choice {
    RoundRobin,
    Random,
    Least,
}

/// Connections that the gateway keeps open: the oldest closes when one more opens.
const OPEN_CONNECTIONS: usize = 5;

#[tokio::main]
async fn main() -> Result<(), Error> {
    tracing_subscriber::fmt().with_env_filter("warn").init();
    let arguments = Arguments::parse();
    let client = Client::connect(ClientConfig::new(arguments.endpoints)).await?;
    match arguments.mode {
        Mode::Service { address, ttl } => service(&client, &arguments.name, &address, ttl).await,
        Mode::Gateway { picker, every_ms } => {
            let pause = Duration::from_millis(every_ms);
            gateway(&client, &arguments.name, picker, pause).await
        }
    }
}

async fn service(client: &Client, name: &str, address: &str, ttl: i64) -> Result<(), Error> {
    let mut registration = register(client, name, address, ttl).await?;
    let text = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
    println!("registered {} -> {address}", text(&registration.key()));
    loop {
        tokio::select! {
            key = registration.registered_anew() => {
                println!("the lease was lost; registered {} -> {address}", text(&key?));
            }
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.map_err(|error| Error::Invalid { text: error.to_string() })?;
                registration.deregister().await?;
                println!("deregistered");
                return Ok(());
            }
        }
    }
}

async fn gateway(
    client: &Client,
    name: &str,
    choice: Choice,
    pause: Duration,
) -> Result<(), Error> {
    let resolver = Resolver::start(client, name).await?;
    let mut instances = resolver.instances();
    let picker: Box<dyn Picker> = match choice {
        Choice::RoundRobin => Box::new(RoundRobin::new(instances.clone())),
        Choice::Random => Box::new(Random::new(instances.clone())),
        Choice::Least => Box::new(LeastConnections::new(instances.clone())),
    };
    let mut open: VecDeque<Picked> = VecDeque::new();
    let mut ticks = tokio::time::interval(pause);
    let show = |now: &[quorate_client::discovery::Instance]| {
        let all: Vec<_> = now
            .iter()
            .map(|instance| instance.address.as_str())
            .collect();
        println!("services: [{}]", all.join(", "));
    };
    show(&instances.now());
    loop {
        tokio::select! {
            now = instances.changed() => show(&now?),
            _ = ticks.tick() => {
                let Some(picked) = picker.pick() else {
                    println!("no service to connect to");
                    continue;
                };
                println!("connect to {}", picked.address());
                open.push_back(picked);
                if open.len() > OPEN_CONNECTIONS {
                    open.pop_front();
                }
            }
        }
    }
}
