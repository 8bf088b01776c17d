//! `skein`: the command line.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use clap::{Parser, Subcommand};
use node::admin::cluster::Standing;
use node::config::Config;
use node::dev::{Dev, Options};
use node::{preflight, run};
use rustix::fs::Mode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A self-hosted IoT core.
#[derive(Parser)]
#[command(name = "skein", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs a single node with embedded defaults, for development.
    Dev {
        /// Where the node keeps its state, its certificates and its keys.
        #[arg(long, default_value = "skein-data")]
        data: PathBuf,
        /// Added to every port.
        #[arg(long, default_value_t = 0)]
        port_offset: u16,
        /// The account in ARNs: twelve digits.
        #[arg(long, default_value = "000000000000")]
        account_id: String,
        /// The region in ARNs.
        #[arg(long, default_value = "us-east-1")]
        region: String,
        /// Opens a damaged log by dropping everything from the damage on. Loses acknowledged data.
        #[arg(long)]
        accept_log_loss: bool,
    },
    /// Runs a node in production.
    Serve {
        /// The configuration, in TOML. `SKEIN__A__B=value` in the environment overrides `a.b`.
        #[arg(long)]
        config: PathBuf,
        /// Opens a damaged log by dropping everything from the damage on. Loses acknowledged data.
        #[arg(long)]
        accept_log_loss: bool,
    },
    /// Looks after a cluster.
    Cluster {
        #[command(subcommand)]
        command: ClusterCommand,
    },
    /// Looks after configuration files.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

#[derive(Subcommand)]
enum ClusterCommand {
    /// Says how the cluster stands, as one of its nodes sees it. The exit code is 0 when all is well.
    Status {
        /// The admin listener of the node.
        #[arg(long, default_value = "127.0.0.1:9464")]
        admin: String,
    },
    /// Makes the certificates and keys that nodes know each other by.
    Keys {
        /// Where they are written: ca.pem, ca.key, node-1.pem, node-1.key and so on. Keep ca.key away
        /// from the nodes: whoever has it can be one.
        #[arg(long, default_value = "cluster-keys")]
        out: PathBuf,
        /// The numbers of the nodes. Those that have files there keep them.
        #[arg(required = true, value_parser = clap::value_parser!(u64).range(1..=0xFFFF))]
        nodes: Vec<u64>,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Checks a file and says what a node would do with it.
    Check {
        /// The configuration, in TOML.
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    // The data folder holds every message, key and certificate: what is made is its owner's alone.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let result = match Arguments::parse().command {
        Command::Dev { data, port_offset, account_id, region, accept_log_loss } => {
            dev(Options { data, port_offset, account: account_id, region, accept_log_loss })
        }
        Command::Serve { config, accept_log_loss } => serve(&config, accept_log_loss),
        Command::Cluster { command } => match command {
            ClusterCommand::Status { admin } => status(&admin),
            ClusterCommand::Keys { out, nodes } => keys(&out, &nodes),
        },
        Command::Config { command: ConfigCommand::Check { file } } => check(&file),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("skein: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dev(options: Options) -> anyhow::Result<()> {
    let dev = Dev::prepare(options)?;
    run::run(dev.config.clone(), Some(dev)).map_err(|error| match is_port_taken(&error) {
        true => anyhow!("{error:#}; choose other ports with --port-offset"),
        false => error,
    })
}

/// Whether somebody else listens where a node wants to.
fn is_port_taken(error: &anyhow::Error) -> bool {
    let errors = error.chain().filter_map(|error| error.downcast_ref::<io::Error>());
    errors.into_iter().any(|error| error.kind() == io::ErrorKind::AddrInUse)
}

fn serve(path: &std::path::Path, accept_log_loss: bool) -> anyhow::Result<()> {
    let mut config = Config::read(path, std::env::vars())?;
    config.accept_log_loss |= accept_log_loss;
    run::run(config, None)
}

fn status(admin: &str) -> anyhow::Result<()> {
    let standing = Standing::of(admin)?;
    print!("{}", standing.table());
    match &*standing.complaints() {
        [] => Ok(()),
        complaints => bail!("{}", complaints.join("; ")),
    }
}

fn keys(out: &std::path::Path, nodes: &[u64]) -> anyhow::Result<()> {
    let made = node::pki::make_node_keys(out, nodes)?;
    for node in nodes {
        let what = if made.contains(node) { "made" } else { "was there already" };
        println!("node {node}: {what}: {}", out.join(format!("node-{node}.pem")).display());
    }
    Ok(())
}

fn check(path: &std::path::Path) -> anyhow::Result<()> {
    let refused = "the configuration cannot be used";
    let config = Config::read(path, std::env::vars()).context(refused)?;
    let found = preflight::check(&config);
    for warning in &found.warnings {
        eprintln!("warning: {warning}");
    }
    found.refuse_problems().context(refused)?;
    print!("{}", run::explain(&config));
    Ok(())
}
