// Boost.Interprocess: a managed segment, whose allocator and names are behind an interprocess_mutex.

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <boost/interprocess/allocators/allocator.hpp>
#include <boost/interprocess/containers/map.hpp>
#include <boost/interprocess/containers/vector.hpp>
#include <boost/interprocess/managed_shared_memory.hpp>
#include <boost/interprocess/sync/file_lock.hpp>
#include <boost/interprocess/sync/interprocess_mutex.hpp>
#include <boost/interprocess/sync/interprocess_semaphore.hpp>
#include <boost/interprocess/sync/scoped_lock.hpp>
#include <boost/version.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace bi = boost::interprocess;
using Clock = std::chrono::steady_clock;
using Segment = bi::managed_shared_memory;
using Subject = std::function<double(std::uint64_t)>;

namespace {

std::string text(const char* name) {
    const char* value = std::getenv(name);
    if (value == nullptr) {
        std::cerr << "no " << name << "\n";
        std::exit(1);
    }
    return value;
}

std::size_t number(const char* name) { return std::stoull(text(name)); }

double since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

// A value that the compiler must not drop.
volatile double sink;

template <class Call>
Subject each(Call call) {
    return [call](std::uint64_t times) mutable {
        auto start = Clock::now();
        for (std::uint64_t at = 0; at < times; ++at) call();
        return since(start);
    };
}

// A segment that the program removes at its end.
struct Owned {
    std::string name;
    Segment segment;

    Owned(const std::string& name, std::size_t bytes)
        : name(name), segment(bi::create_only, name.c_str(), bytes) {}
    ~Owned() { bi::shared_memory_object::remove(name.c_str()); }
    Owned(const Owned&) = delete;
};

// A child process that runs a subject. The destructor ends it.
struct Child {
    pid_t pid;
    int ask[2], answer[2];

    explicit Child(const std::function<Subject()>& prepare) {
        if (pipe(ask) != 0 || pipe(answer) != 0) std::abort();
        pid = fork();
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            close(ask[1]);
            Subject subject = prepare();
            std::uint64_t times;
            while (read(ask[0], &times, sizeof times) == sizeof times) {
                double took = subject(times);
                if (write(answer[1], &took, sizeof took) != sizeof took) break;
            }
            _exit(0);
        }
        close(ask[0]);
        close(answer[1]);
    }

    void send(std::uint64_t times) {
        if (write(ask[1], &times, sizeof times) != sizeof times) std::abort();
    }

    double receive() {
        double took;
        if (read(answer[0], &took, sizeof took) != sizeof took) std::abort();
        return took;
    }

    ~Child() {
        close(ask[1]);
        kill(pid, SIGKILL);
        waitpid(pid, nullptr, 0);
        close(answer[0]);
    }
    Child(const Child&) = delete;
};

struct Semaphores {
    bi::interprocess_semaphore go[2] = {bi::interprocess_semaphore(0),
                                        bi::interprocess_semaphore(0)};
    bi::interprocess_semaphore done{0};
};

// A dictionary of arrays: Boost's containers, whose memory is the segment's.
using Numbers = bi::vector<double, bi::allocator<double, Segment::segment_manager>>;
using Entry = std::pair<const int, Numbers>;
using Dictionary =
    bi::map<int, Numbers, std::less<int>, bi::allocator<Entry, Segment::segment_manager>>;

Dictionary* put(Segment& segment, const std::vector<std::vector<double>>& arrays) {
    auto* made = segment.construct<Dictionary>("dictionary")(
        std::less<int>(), Dictionary::allocator_type(segment.get_segment_manager()));
    for (std::size_t at = 0; at < arrays.size(); ++at) {
        Numbers copy(arrays[at].begin(), arrays[at].end(),
                     Numbers::allocator_type(segment.get_segment_manager()));
        made->emplace(static_cast<int>(at), boost::move(copy));
    }
    return made;
}

std::vector<std::vector<double>> dictionary(std::size_t large) {
    std::vector<std::vector<double>> arrays;
    for (int at = 0; at < 20; ++at) arrays.emplace_back(large, at);
    return arrays;
}

Subject made(std::shared_ptr<Owned> owned, std::size_t bytes) {
    return each([owned, bytes] {
        void* x = owned->segment.allocate(bytes);
        sink = static_cast<double>(owned->segment.get_handle_from_address(x));
        owned->segment.deallocate(x);
    });
}

// The subject of a row, or nothing.
Subject subject(const std::string& row) {
    std::size_t large = number("PEERS_LARGE"), small = number("PEERS_SMALL");
    std::size_t names = number("PEERS_NAMES");
    std::string name = text("PEERS_PREFIX") + "-" + row;
    auto segment = [&name](std::size_t bytes) {
        return std::make_shared<Owned>(name, bytes + (1 << 20));
    };
    if (row == "share") return made(segment(large * 8), large * 8);
    if (row == "create") return made(segment(1 << 20), small * 8);
    if (row == "open") {
        auto owned = segment(large * 8);
        auto* x = static_cast<double*>(owned->segment.allocate(large * 8));
        x[0] = 1;
        auto handle = owned->segment.get_handle_from_address(x);
        auto child = std::make_shared<Child>([name, handle] {
            auto opened = std::make_shared<Segment>(bi::open_only, name.c_str());
            return each([opened, handle] {
                volatile auto sent = handle;
                sink = *static_cast<double*>(opened->get_address_from_handle(sent));
            });
        });
        return [owned, child](std::uint64_t times) {
            child->send(times);
            return child->receive();
        };
    }
    if (row == "tasks") {
        auto owned = segment(0);
        auto* shared = owned->segment.construct<Semaphores>("semaphores")();
        std::vector<std::shared_ptr<Child>> workers;
        for (int worker = 0; worker < 2; ++worker) {
            workers.push_back(std::make_shared<Child>([name, worker] {
                auto opened = std::make_shared<Segment>(bi::open_only, name.c_str());
                auto* shared = opened->find<Semaphores>("semaphores").first;
                return each([opened, shared, worker] {
                    shared->go[worker].wait();
                    shared->done.post();
                });
            }));
        }
        return [owned, shared, workers](std::uint64_t times) {
            for (auto& worker : workers) worker->send(times);
            auto start = Clock::now();
            for (std::uint64_t at = 0; at < times; ++at) {
                for (auto& go : shared->go) go.post();
                for (int answers = 0; answers < 2; ++answers) shared->done.wait();
            }
            double took = since(start);
            for (auto& worker : workers) worker->receive();
            return took;
        };
    }
    if (row == "put" || row == "get") {
        auto owned = segment(20 * large * 8 + (1 << 20));
        auto arrays = std::make_shared<std::vector<std::vector<double>>>(dictionary(large));
        if (row == "put") {
            return each([owned, arrays] {
                put(owned->segment, *arrays);
                owned->segment.destroy<Dictionary>("dictionary");
            });
        }
        put(owned->segment, *arrays);
        return each([owned] {
            auto* found = owned->segment.find<Dictionary>("dictionary").first;
            double sum = 0;
            for (auto& [at, array] : *found) sum += array[0];
            sink = sum;
        });
    }
    if (row == "find") {
        auto owned = segment(names * 256);
        std::vector<std::string> all;
        for (std::size_t at = 0; at < names; ++at) {
            all.push_back("array-" + std::to_string(at));
            owned->segment.construct<double>(all.back().c_str())[4](1.0);
        }
        std::uint64_t at = 0;
        return each([owned, all, at]() mutable {
            at += 0x9e3779b97f4a7c15;
            const auto& name = all[(at >> 16) % all.size()];
            sink = owned->segment.find<double>(name.c_str()).first[0];
        });
    }
    return {};
}

void serve() {
    std::map<std::string, Subject> subjects;
    std::string line;
    while (std::getline(std::cin, line)) {
        std::istringstream words(line);
        std::string what, row;
        words >> what >> row;
        if (what == "prepare") {
            Subject made = subject(row);
            std::cout << (made ? "ready" : "none not measured") << std::endl;
            if (made) subjects[row] = made;
        } else if (what == "sample") {
            std::uint64_t times;
            words >> times;
            std::cout << std::scientific << subjects.at(row)(times) << std::endl;
        } else {
            subjects.erase(row);
            std::cout << "done" << std::endl;
        }
    }
}

// Trials: a process is killed at a random instant of its work, and another one does the same work.

constexpr std::size_t MEGABYTE = std::size_t(1) << 20;
constexpr auto DEADLINE = std::chrono::seconds(1);

std::uint64_t mixed(std::uint64_t seed) {
    std::uint64_t z = seed * 0x9e3779b97f4a7c15 ^ 0x123456789abcdef1;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

using Work = std::function<void()>;

// Kills a child that does the work again and again. `prepare` is called in the child.
void kill_one(const std::function<Work()>& prepare, std::uint64_t seed) {
    int began[2];
    if (pipe(began) != 0) std::abort();
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        Work work = prepare();
        work();
        if (write(began[1], "", 1) != 1) _exit(1);
        for (;;) work();
    }
    char byte;
    if (read(began[0], &byte, 1) != 1) std::abort();
    close(began[0]);
    close(began[1]);
    std::this_thread::sleep_for(std::chrono::microseconds(1000 + mixed(seed) % 19000));
    kill(pid, SIGKILL);
    waitpid(pid, nullptr, 0);
}

// Runs the work once in another child, and prints what became of it.
void survivor(const std::function<Work()>& prepare) {
    auto start = Clock::now();
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        try {
            prepare()();
            _exit(0);
        } catch (const std::exception&) {
            _exit(2);
        }
    }
    auto pause = std::chrono::microseconds(50);
    int status = 0;
    bool ended;
    while (!(ended = waitpid(pid, &status, WNOHANG) == pid) && Clock::now() - start < DEADLINE) {
        std::this_thread::sleep_for(pause);
        pause = std::min(pause * 2, std::chrono::microseconds(5000));
    }
    if (!ended) {
        kill(pid, SIGKILL);
        waitpid(pid, nullptr, 0);
    }
    const char* said = "null";
    if (ended && WIFEXITED(status))
        said = WEXITSTATUS(status) == 0 ? "\"goes on\"" : "\"an exception\"";
    else if (ended)
        said = "\"crashed\"";
    std::cout << "{\"hang\": " << (ended ? "false" : "true") << ", \"said\": " << said
              << ", \"seconds\": " << since(start) << ", \"held\": ";
}

void trial(const std::string& kind, std::uint64_t seed) {
    std::string name = text("PEERS_PREFIX") + "-" + std::to_string(seed);
    Owned owned(name, 16 * MEGABYTE);
    auto* mutex = owned.segment.construct<bi::interprocess_mutex>("mutex")();
    auto* numbers = static_cast<char*>(owned.segment.allocate(MEGABYTE));
    std::string lock_file = "/dev/shm/" + name + ".lock";
    // The children inherit the mapping, at the same address.
    std::function<Work()> work;
    if (kind == "create") {
        work = [&]() -> Work {
            return [&] {
                void* x = owned.segment.allocate(MEGABYTE);
                std::memset(x, 1, MEGABYTE);
                owned.segment.deallocate(x);
            };
        };
    } else if (kind == "create-empty") {
        work = [&]() -> Work {
            return [&] { owned.segment.deallocate(owned.segment.allocate(MEGABYTE)); };
        };
    } else if (kind == "write") {
        work = [&]() -> Work {
            return [&] {
                bi::scoped_lock<bi::interprocess_mutex> locked(*mutex);
                std::memset(numbers, 1, MEGABYTE);
            };
        };
    } else if (kind == "write-file-lock") {
        std::ofstream{lock_file};
        work = [&]() -> Work {
            auto lock = std::make_shared<bi::file_lock>(lock_file.c_str());
            return [&, lock] {
                bi::scoped_lock<bi::file_lock> locked(*lock);
                std::memset(numbers, 1, MEGABYTE);
            };
        };
    } else {
        std::exit(1);
    }
    auto free_before = owned.segment.get_free_memory();
    kill_one(work, seed);
    survivor(work);
    // The counter is read without the lock, which the dead may have.
    auto held = free_before - owned.segment.get_free_memory();
    std::cout << held << "}" << std::endl;
    unlink(lock_file.c_str());
}

}  // namespace

int main(int count, char** arguments) {
    std::string what = count > 1 ? arguments[1] : "";
    if (what == "version") {
        std::cout << BOOST_VERSION / 100000 << "." << BOOST_VERSION / 100 % 1000 << "."
                  << BOOST_VERSION % 100 << std::endl;
    } else if (what == "trials" && count == 5) {
        std::uint64_t trials = std::stoull(arguments[3]), seed = std::stoull(arguments[4]);
        for (std::uint64_t at = seed; at < seed + trials; ++at) trial(arguments[2], at);
    } else {
        serve();
    }
}
