//! `skein`: the command line.

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::{Parser, Subcommand};
use node::admin::change::{self, Wish};
use node::admin::cluster;
use node::admin::crl::Imported;
use node::admin::explain::{Explanation, Question};
use node::admin::replay::{Replay, Trial, Watched, Watching};
use node::audit;
use node::backup::{self, Standing};
use node::config::{Config, S3};
use node::dev::{self, Dev, Options};
use node::{login, preflight, run};
use rustix::fs::Mode;
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Where more is said than in the help.
const DOCUMENTATION: &str = "Documentation: README.md and docs/ of the source; first-node.md, configuration.md, cluster.md, \
     runbook.md";

/// A self-hosted IoT core.
#[derive(Parser)]
#[command(name = "skein", version, after_help = DOCUMENTATION)]
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
        #[command(flatten)]
        config: ConfigFile,
        /// Opens a damaged log by dropping everything from the damage on. Loses acknowledged data.
        #[arg(long)]
        accept_log_loss: bool,
    },
    /// Looks after a cluster.
    Cluster {
        #[command(subcommand)]
        command: ClusterCommand,
    },
    /// Looks after certificate revocation lists (CRLs).
    Crl {
        #[command(subcommand)]
        command: CrlCommand,
    },
    /// Looks at policies.
    Policy {
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// Looks after audit logs.
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },
    /// Logs a person in with an OpenID Connect provider, and prints temporary credentials as AWS tools
    /// take them from a `credential_process`.
    Login {
        #[command(flatten)]
        options: login::Options,
    },
    /// Prints the description of the REST API, in OpenAPI 3.1.
    Openapi,
    /// Looks after configuration files.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

#[derive(Subcommand)]
enum AuditCommand {
    /// Checks that nothing was changed in an audit log or taken out of it. The exit code is 0 when it is
    /// whole.
    Verify {
        /// The file of the log; full files beside it are checked with it.
        file: PathBuf,
    },
}

#[derive(Subcommand)]
enum CrlCommand {
    /// Imports the revocation list of a registered CA: what is on it is revoked, and neither registered nor
    /// activated from then on.
    Import {
        /// The list, in PEM or DER.
        file: PathBuf,
        /// The admin listener of a node; of a cluster, of any.
        #[arg(long, default_value = "127.0.0.1:9464")]
        admin: String,
    },
}

#[derive(Subcommand)]
enum PolicyCommand {
    /// Says which statement of which policy decides about a request. The exit code is 0 when it is
    /// allowed.
    Explain {
        /// The certificate of who asks: its id, or its ARN.
        #[arg(long)]
        certificate: String,
        /// The client id of the connection; none for HTTP.
        #[arg(long)]
        client_id: Option<String>,
        /// Where the client is.
        #[arg(long)]
        source_ip: Option<IpAddr>,
        /// The name that the client asks for, in TLS or as the host of a WebSocket without.
        #[arg(long)]
        domain_name: Option<String>,
        /// The client asks for a session that outlives the connection.
        #[arg(long)]
        persistent: bool,
        /// The client brings a will for this topic.
        #[arg(long)]
        will_topic: Option<String>,
        /// The admin listener of a node.
        #[arg(long, default_value = "127.0.0.1:9464")]
        admin: String,
        /// Such as `iot:Publish`.
        action: String,
        /// The end of an ARN, such as `topic/a/b` or `client/lamp`.
        resource: String,
    },
    /// Has the node that a client is connected to note what policies decide about the client, for
    /// `skein policy replay`.
    Record {
        /// The client id.
        #[arg(long)]
        client: String,
        /// For so many minutes; 0 ends it and forgets what was noted.
        #[arg(long, default_value_t = 10)]
        minutes: u64,
        /// The admin listener of that node.
        #[arg(long, default_value = "127.0.0.1:9464")]
        admin: String,
    },
    /// Says which of the decisions that were noted about a client would be other ones if another version
    /// of a policy were the default. The exit code is 0 when none would.
    Replay {
        /// The client id.
        #[arg(long)]
        client: String,
        /// The name of the policy.
        #[arg(long)]
        policy: String,
        /// The version that is tried.
        #[arg(long, value_name = "NUMBER")]
        version: u64,
        /// The admin listener of the node where it was recorded.
        #[arg(long, default_value = "127.0.0.1:9464")]
        admin: String,
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
    /// Makes a node a member: it learns what there is and then serves and decides with the others.
    Add {
        /// Its number, never given to another one.
        node: u64,
        /// Where others dial it, as `host:port`.
        address: String,
        #[command(flatten)]
        asking: Asking,
    },
    /// Takes a node out of the cluster: first its clients go elsewhere, then its groups do without it.
    Remove {
        /// Its number.
        node: u64,
        /// It never returns: nobody waits for it, and it is refused if it does.
        #[arg(long)]
        dead: bool,
        #[command(flatten)]
        asking: Asking,
    },
    /// Replaces a stopped node that has lost its data: takes it out, and lets it join under its number
    /// with an empty data folder and `join = true`.
    Replace {
        /// Its number.
        node: u64,
        /// Where others dial it from now on, if that has changed.
        #[arg(long)]
        address: Option<String>,
        #[command(flatten)]
        asking: Asking,
    },
    /// Takes a node out of service, or back: its clients go elsewhere, it leads nothing and is not
    /// ready, but it keeps its part of the data.
    Drain {
        /// Its number.
        node: u64,
        /// Puts it back into service.
        #[arg(long)]
        undo: bool,
        #[command(flatten)]
        asking: Asking,
    },
    /// Has a node lead a group for as long as it is up.
    Transfer {
        /// The group.
        group: u32,
        /// The node; without it the lead is balanced again.
        node: Option<u64>,
        #[command(flatten)]
        asking: Asking,
    },
    /// The way out when a majority of the nodes never returns: makes the stopped node of this
    /// configuration the only member of its cluster. What only the others had is lost.
    Recover {
        /// The configuration of the node.
        #[arg(long)]
        config: PathBuf,
        /// Does it. Without this it is only said what would be done.
        #[arg(long)]
        accept_loss: bool,
    },
    /// Has a node write a backup of the whole cluster to its `backup.folder` or `backup.url`.
    Backup {
        /// The admin listener of the node.
        #[arg(long, default_value = "127.0.0.1:9464")]
        admin: String,
    },
    /// Makes sure that a backup can be restored.
    Check {
        /// The folder of the backup, or its URL, `s3://bucket/…`.
        backup: PathBuf,
        /// A configuration whose `[backup.s3]` says how its store is reached; without one the environment
        /// does, with AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY.
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Puts a backup into the empty data folder of a node that has not started yet. Every founder of
    /// the new cluster needs that, and `restored_from` in its configuration.
    Restore {
        /// The configuration of the node.
        #[arg(long)]
        config: PathBuf,
        /// The folder of the backup, or its URL, `s3://bucket/…`.
        backup: PathBuf,
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

/// Who is asked for a change, and for how long its end is waited for.
#[derive(clap::Args)]
struct Asking {
    /// The admin listener of any node that stays.
    #[arg(long, default_value = "127.0.0.1:9464")]
    admin: String,
    /// Seconds until this command gives up waiting; what was begun goes on.
    #[arg(long, default_value_t = 600)]
    timeout: u64,
}

impl Asking {
    fn carry_out(&self, wish: &Wish) -> anyhow::Result<()> {
        change::carry_out(&self.admin, wish, Duration::from_secs(self.timeout))
    }
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Checks a file and says what a node would do with it.
    Check {
        #[command(flatten)]
        config: ConfigFile,
    },
}

/// A configuration, by whichever of two names it is given.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
struct ConfigFile {
    /// The configuration, in TOML. `SKEIN__A__B=value` in the environment overrides `a.b`.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The configuration; the same as --config FILE.
    file: Option<PathBuf>,
}

impl ConfigFile {
    fn path(self) -> PathBuf {
        self.config.or(self.file).expect("the group is required")
    }
}

fn main() -> ExitCode {
    // The data folder holds every message, key and certificate: what is made is its owner's alone.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    // The allocator asks for huge pages: two megabytes for the first byte in each, 25 more at rest, and
    // nothing measurable in speed. A kernel that knows no such switch has no such pages.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let result = match Arguments::parse().command {
        Command::Dev { data, port_offset, account_id, region, accept_log_loss } => {
            dev(Options { data, port_offset, account: account_id, region, accept_log_loss })
        }
        Command::Serve { config, accept_log_loss } => serve(&config.path(), accept_log_loss),
        Command::Cluster { command } => operate(command),
        Command::Crl { command: CrlCommand::Import { file, admin } } => import_list(&file, &admin),
        Command::Policy { command } => look_at_policies(command),
        Command::Audit { command: AuditCommand::Verify { file } } => verify(&file),
        Command::Login { options } => log_in(&options),
        Command::Openapi => describe(),
        Command::Config { command: ConfigCommand::Check { config } } => check(&config.path()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("skein: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn describe() -> anyhow::Result<()> {
    // A pipe that ends early is no panic.
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &api::openapi::document())?;
    Ok(writeln!(out)?)
}

fn log_in(options: &login::Options) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout(), "{}", login::login(options)?)?)
}

fn operate(command: ClusterCommand) -> anyhow::Result<()> {
    match command {
        ClusterCommand::Status { admin } => status(&admin),
        ClusterCommand::Backup { admin } => take_backup(&admin),
        ClusterCommand::Check { backup, config } => check_backup(&backup, config.as_deref()),
        ClusterCommand::Restore { config, backup } => restore(&config, &backup),
        ClusterCommand::Add { node, address, asking } => {
            asking.carry_out(&Wish::Add { node, address })
        }
        ClusterCommand::Remove { node, dead, asking } => {
            asking.carry_out(&Wish::Remove { node, dead })
        }
        ClusterCommand::Replace { node, address, asking } => {
            let patience = Duration::from_secs(asking.timeout);
            change::replace(&asking.admin, node, address, patience)
        }
        ClusterCommand::Drain { node, undo, asking } => {
            asking.carry_out(&Wish::Drain { node, undo })
        }
        ClusterCommand::Transfer { group, node, asking } => {
            asking.carry_out(&Wish::Transfer { group, node })
        }
        ClusterCommand::Recover { config, accept_loss } => {
            let config = Config::read(&config, std::env::vars())?;
            println!("{}", node::recover::recover(&config, accept_loss)?);
            Ok(())
        }
        ClusterCommand::Keys { out, nodes } => keys(&out, &nodes),
    }
}

fn look_at_policies(command: PolicyCommand) -> anyhow::Result<()> {
    let (question, admin) = match command {
        PolicyCommand::Explain {
            certificate,
            client_id,
            source_ip,
            domain_name,
            persistent,
            will_topic,
            admin,
            action,
            resource,
        } => {
            let asked = Question {
                certificate,
                client_id,
                source_ip,
                domain_name,
                persistent,
                will_topic,
                action,
                resource,
            };
            (asked, admin)
        }
        PolicyCommand::Record { client, minutes, admin } => {
            return record(&admin, &Watching { client, minutes });
        }
        PolicyCommand::Replay { client, policy, version, admin } => {
            let replay = Replay::of(&admin, &Trial { client, policy, version })?;
            print!("{replay}");
            return replay.refuse_changes();
        }
    };
    let explanation = Explanation::of(&admin, &question)?;
    print!("{explanation}");
    if !explanation.is_allowed() {
        bail!("{} on {} is refused", question.action, question.resource);
    }
    Ok(())
}

fn record(admin: &str, wish: &Watching) -> anyhow::Result<()> {
    let watched = Watched::order(admin, wish)?;
    let client = &wish.client;
    match (wish.minutes, watched.connected) {
        (0, _) => println!("client {client} is not recorded any more"),
        (minutes, true) => println!("client {client} is recorded for {minutes} minutes"),
        (minutes, false) => println!(
            "client {client} is not connected; it is recorded if it connects to this node within \
             {minutes} minutes"
        ),
    }
    Ok(())
}

fn import_list(file: &Path, admin: &str) -> anyhow::Result<()> {
    print!("{}", Imported::order(admin, file)?);
    Ok(())
}

fn verify(file: &Path) -> anyhow::Result<()> {
    print!("{}", audit::verify(file)?);
    Ok(())
}

fn dev(options: Options) -> anyhow::Result<()> {
    let ignored = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let ignored: Vec<_> = ignored.filter(|name| name.starts_with("SKEIN__")).collect();
    if !ignored.is_empty() {
        let ignored = ignored.join(", ");
        eprintln!("warning: `skein dev` reads no configuration: {ignored} has no effect");
    }
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

fn serve(path: &Path, accept_log_loss: bool) -> anyhow::Result<()> {
    let mut config = Config::read(path, std::env::vars())?;
    config.accept_log_loss |= accept_log_loss;
    run::run(config, None).map_err(|error| match is_port_taken(&error) {
        true => anyhow!("{error:#}; `ss -ltnp` shows who listens there"),
        false => error,
    })
}

fn status(admin: &str) -> anyhow::Result<()> {
    let standing = cluster::Standing::of(admin)?;
    print!("{}", standing.table());
    match &*standing.complaints() {
        [] => {
            println!("all is well");
            Ok(())
        }
        complaints => bail!("{}", complaints.join("; ")),
    }
}

fn take_backup(admin: &str) -> anyhow::Result<()> {
    let mut before = None;
    let taken = backup::order(admin, |standing| {
        if let Standing::Running { groups, of } = standing
            && before != Some(*groups)
        {
            before = Some(*groups);
            eprintln!("{groups} of {of} groups are written");
        }
    })?;
    if let Standing::Done { place, id, bytes } = taken {
        println!("{place}: {bytes} bytes, backup {id}");
    }
    Ok(())
}

fn check_backup(at: &Path, config: Option<&Path>) -> anyhow::Result<()> {
    let s3 = match config {
        Some(path) => Config::read(path, std::env::vars())?.backup.s3,
        None => S3::default(),
    };
    let runtime = Runtime::new()?;
    let said = |group: &backup::GroupFile| eprintln!("group {}: ok", group.group);
    let manifest = backup::check(at, &s3, runtime.handle(), said)?;
    let of =
        manifest.cluster.map_or("a single node".into(), |cluster| format!("cluster {cluster}"));
    println!("backup {} of {of}, taken {}, can be restored", manifest.id, manifest.taken);
    Ok(())
}

fn restore(config: &Path, from: &Path) -> anyhow::Result<()> {
    let config = Config::read(config, std::env::vars())?;
    let runtime = Runtime::new()?;
    let manifest = backup::restore(&config, from, runtime.handle(), |done, group| {
        eprintln!("group {}: {done}", group.group);
    })?;
    println!(
        "{} has the state of backup {}, taken {}: start the node",
        config.data.display(),
        manifest.id,
        manifest.taken
    );
    Ok(())
}

fn keys(out: &Path, nodes: &[u64]) -> anyhow::Result<()> {
    let made = node::pki::make_node_keys(out, nodes)?;
    for node in nodes {
        let what = if made.contains(node) { "made" } else { "was there already" };
        println!("node {node}: {what}: {}", out.join(format!("node-{node}.pem")).display());
    }
    Ok(())
}

fn check(path: &Path) -> anyhow::Result<()> {
    let refused = "the configuration cannot be used";
    let config = Config::read(path, std::env::vars()).context(refused)?;
    let mut found = preflight::check(&config);
    dev::check_device(&config, &mut found);
    for warning in &found.warnings {
        eprintln!("warning: {warning}");
    }
    found.refuse_problems().context(refused)?;
    println!("{}ok", run::explain(&config));
    Ok(())
}
