//! iceoryx2: samples that a publisher loans, fills and sends, and that subscribers receive in place.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use iceoryx2::node::Node;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::prelude::*;
use ndshm_peers::process::Process;
use ndshm_peers::{Outcome, Plan, Subject, each, scattered, serve, timed, trial_arguments};

type Numbers =
    iceoryx2::service::port_factory::publish_subscribe::PortFactory<ipc::Service, [f64], ()>;

fn main() {
    set_log_level(LogLevel::Error);
    let plan = Plan::read();
    match trial_arguments() {
        Some((kind, trials, seed)) => {
            assert_eq!(kind, "create", "there is no lock to die under");
            for trial in seed..seed + trials {
                killed(&plan, trial).print();
            }
        }
        None => serve(|row| subject(&plan, row)),
    }
}

/// A node whose files begin with the prefix of the run, in the directory of the run.
fn node(plan: &Plan) -> Node<ipc::Service> {
    let directory = std::env::var("PEERS_DIRECTORY").expect("started by the driver");
    let mut config = Config::default();
    config.global.prefix =
        FileName::new(format!("{}_", plan.prefix).as_bytes()).expect("a file name");
    config
        .global
        .set_root_path(&Path::new(directory.as_bytes()).expect("a path"));
    NodeBuilder::new()
        .config(&config)
        .signal_handling_mode(SignalHandlingMode::Disabled)
        .create()
        .expect("a node")
}

fn numbers(node: &Node<ipc::Service>, name: &str) -> Numbers {
    node.service_builder(&name.try_into().expect("a name"))
        .publish_subscribe::<[f64]>()
        .open_or_create()
        .expect("a service")
}

fn publisher(service: &Numbers, len: usize) -> Publisher<ipc::Service, [f64], ()> {
    let publisher = service.publisher_builder().initial_max_slice_len(len);
    publisher.create().expect("a publisher")
}

/// Loans a sample and sends it, without writing it.
fn send(publisher: &Publisher<ipc::Service, [f64], ()>, len: usize) {
    let sample = publisher.loan_slice_uninit(len).expect("a free sample");
    // SAFETY: all bytes are valid f64s; the memory was zeroed by the system at first.
    let sample = unsafe { sample.assume_init() };
    sample.send().expect("a subscriber");
}

fn subject(plan: &Plan, row: &str) -> Result<Subject, String> {
    match row {
        "share" => {
            // The worker never looks, so each sample takes the place of the oldest one.
            let mut worker = subscriber(plan, row);
            let node = node(plan);
            let service = numbers(&node, row);
            let (publisher, len) = (publisher(&service, plan.large), plan.large);
            worker.ask(0);
            worker.answer();
            Ok(Box::new(move |times| {
                let _stay = (&worker, &service, &node);
                timed(times, || send(&publisher, len))
            }))
        }
        "open" => {
            let mut worker = subscriber(plan, row);
            let node = node(plan);
            let service = numbers(&node, row);
            let (publisher, len) = (publisher(&service, plan.large), plan.large);
            worker.ask(0);
            worker.answer();
            Ok(Box::new(move |times| {
                let _stay = (&service, &node);
                let (mut left, mut nanoseconds) = (times, 0);
                while left > 0 {
                    // As many as the worker has room for.
                    let some = left.min(2);
                    (0..some).for_each(|_| send(&publisher, len));
                    worker.ask(some);
                    nanoseconds += worker.answer();
                    left -= some;
                }
                Duration::from_nanos(nanoseconds)
            }))
        }
        "create" => {
            let node = node(plan);
            let service = numbers(&node, row);
            let (publisher, len) = (publisher(&service, plan.small), plan.small);
            Ok(Box::new(move |times| {
                let _stay = (&service, &node);
                timed(times, || {
                    drop(publisher.loan_slice_uninit(len).expect("a free sample"))
                })
            }))
        }
        "tasks" => Ok(tasks(plan)),
        "find" => {
            let node = node(plan);
            // A service is several files, and takes some hundred microseconds to create.
            let names: Vec<String> = (0..plan.names.min(100))
                .map(|at| format!("array-{at}"))
                .collect();
            let services: Vec<Numbers> = names.iter().map(|name| numbers(&node, name)).collect();
            let mut next = scattered(names.len());
            Ok(each(move || {
                let _stay = &services;
                let name = names[next()].as_str().try_into().expect("a name");
                let service = node.service_builder(&name).publish_subscribe::<[f64]>();
                drop(service.open().expect("it exists"));
            }))
        }
        _ => Err("it has messages, not objects".to_owned()),
    }
}

/// A worker that receives as many samples as it is asked to, and answers with the time. Asked for
/// none, it answers when it is connected.
fn subscriber(plan: &Plan, row: &str) -> Process {
    Process::fork(|| {
        let node = node(plan);
        let service = numbers(&node, row);
        let subscriber = service.subscriber_builder().create().expect("a subscriber");
        move |count| {
            let _stay = (&service, &node);
            timed(count, || {
                let sample = subscriber
                    .receive()
                    .expect("a connection")
                    .expect("a sample");
                sample[0]
            })
            .as_nanos() as u64
        }
    })
}

/// Two workers that wait for an event each, and answer by one.
fn tasks(plan: &Plan) -> Subject {
    let events = |node: &Node<ipc::Service>, name: &str| {
        let service = node.service_builder(&name.try_into().expect("a name"));
        service.event().open_or_create().expect("a service")
    };
    let workers: Vec<Process> = (0..2)
        .map(|worker| {
            Process::fork(|| {
                let node = node(plan);
                let (go, done) = (
                    events(&node, &format!("go-{worker}")),
                    events(&node, "done"),
                );
                let listener = go.listener_builder().create().expect("a listener");
                let notifier = RefCell::new(None);
                move |count| {
                    let _stay = &node;
                    let mut notifier = notifier.borrow_mut();
                    let notifier = notifier.get_or_insert_with(|| {
                        done.notifier_builder().create().expect("a notifier")
                    });
                    for _ in 0..count {
                        while listener.blocking_wait(|_| {}).expect("the parent lives") == 0 {}
                        notifier.notify().expect("the parent lives");
                    }
                    0
                }
            })
        })
        .collect();
    let node = node(plan);
    let services: Vec<_> = (0..2)
        .map(|worker| events(&node, &format!("go-{worker}")))
        .collect();
    let done = events(&node, "done");
    let listener = done.listener_builder().create().expect("a listener");
    let notifiers: Vec<_> = services
        .iter()
        .map(|service| service.notifier_builder().create().expect("a notifier"))
        .collect();
    let workers = Rc::new(RefCell::new(workers));
    // Each worker has its listener before it answers.
    for worker in workers.borrow_mut().iter_mut() {
        worker.ask(0);
        worker.answer();
    }
    Box::new(move |times| {
        let _stay = (&node, &services, &done);
        let mut workers = workers.borrow_mut();
        workers.iter_mut().for_each(|worker| worker.ask(times));
        let took = timed(times, || {
            for notifier in &notifiers {
                notifier.notify().expect("the worker lives");
            }
            let mut answers = 0;
            while answers < 2 {
                listener
                    .blocking_wait(|event| answers += event.count)
                    .expect("the workers live");
            }
        });
        workers.iter_mut().for_each(|worker| {
            worker.answer();
        });
        took
    })
}

/// The victim loans, fills and sends samples of 1 MB. The other one sends one and receives it.
fn killed(plan: &Plan, trial: u64) -> Outcome {
    const MEGABYTE: usize = (1 << 20) / 8;
    let name = format!("trial-{trial}");
    let fill = |publisher: &Publisher<ipc::Service, [f64], ()>| {
        let sample = publisher
            .loan_slice_uninit(MEGABYTE)
            .expect("a free sample");
        sample.write_from_fn(|_| 1.0).send().expect("a connection");
    };
    Outcome::of(
        trial,
        || {
            let node = node(plan);
            let service = numbers(&node, &name);
            let publisher = publisher(&service, MEGABYTE);
            move || {
                let _stay = (&node, &service);
                fill(&publisher);
            }
        },
        || {
            let node = node(plan);
            let service = numbers(&node, &name);
            let subscriber = service.subscriber_builder().create().expect("a subscriber");
            let publisher = publisher(&service, MEGABYTE);
            fill(&publisher);
            match subscriber.receive() {
                Ok(Some(sample)) if sample[0] == 1.0 => "goes on".to_owned(),
                Ok(_) => "receives nothing".to_owned(),
                Err(error) => format!("{error:?}"),
            }
        },
    )
}
