// What cuda_on_cpu.hpp is built on: the threads of a block as fibers, checked memory, barriers, shuffles and atomics.
#pragma once
#include <ucontext.h>

#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

namespace simt {

constexpr unsigned WARP = 32;
constexpr size_t STACK_BYTES = 64 * 1024;

// ---------------------------------------------------------------------------------------------- threads of a block
enum class State { ready, at_block_barrier, at_warp_barrier, done };

struct Thread {
    ucontext_t context;
    std::unique_ptr<char[]> stack{new char[STACK_BYTES]};
    State state;
    int line;           // of the barrier it waits at
    unsigned mask;      // lanes it waits for
    dim3 index;
    uint64_t exchange;  // what it offers in a shuffle
};

inline dim3 grid_dim, block_dim, block_index, thread_index;
inline std::vector<Thread> threads;
inline ucontext_t scheduler;
inline unsigned current;
inline std::function<void()> body;
inline std::string error;

// Barriers passed, never reset: what orders accesses to shared memory.
inline uint64_t block_phase = 1, first_phase_of_block = 1;
inline std::vector<uint64_t> warp_phase;

inline unsigned threads_of_block() { return block_dim.x * block_dim.y * block_dim.z; }

// Back to the scheduler, which resumes this thread when it is `ready` again.
inline void leave() { swapcontext(&threads[current].context, &scheduler); }

inline std::string block_name()
{
    return "block (" + std::to_string(block_index.x) + ", " + std::to_string(block_index.y) + ", " +
           std::to_string(block_index.z) + ")";
}

// Records an error and stops the launch: no thread is resumed after it.
[[gnu::format(printf, 1, 2)]] inline void fail(const char* format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    error = block_name() + ", thread " + std::to_string(current) + ": " + text;
    leave();
}

inline void sync_block(int line)
{
    threads[current].state = State::at_block_barrier;
    threads[current].line = line;
    leave();
}

inline void sync_warp(int line, unsigned mask = 0xffffffffu)
{
    if (!(mask >> (current % WARP) & 1))
        fail("line %d: the warp mask %#x does not name the calling lane", line, mask);
    threads[current].state = State::at_warp_barrier;
    threads[current].line = line;
    threads[current].mask = mask;
    leave();
}

inline void thread_main()
{
    body();
    threads[current].state = State::done;
    leave();
}

// Releases each group of lanes that all wait for one another. True if any was released.
inline bool release_warps(unsigned n)
{
    bool released = false;
    for (unsigned i = 0; i < n; ++i) {
        const unsigned begin = i / WARP * WARP, mask = threads[i].mask;
        if (threads[i].state != State::at_warp_barrier)
            continue;
        bool complete = true;
        for (unsigned j = begin; j < n && j < begin + WARP; ++j) {
            const Thread& other = threads[j];
            const bool waits_with = other.state == State::at_warp_barrier && other.mask == mask;
            if (mask >> (j - begin) & 1 && other.state != State::done && !waits_with)
                complete = false;
        }
        if (!complete)
            continue;
        for (unsigned j = begin; j < n && j < begin + WARP; ++j)
            if (mask >> (j - begin) & 1 && threads[j].state == State::at_warp_barrier)
                threads[j].state = State::ready;
        ++warp_phase[i / WARP];
        released = true;
    }
    return released;
}

// Where a thread is that does not run.
inline std::string whereabouts(unsigned i)
{
    const Thread& thread = threads[i];
    const std::string name = "thread " + std::to_string(i), line = std::to_string(thread.line);
    switch (thread.state) {
    case State::at_block_barrier: return name + " waits at the __syncthreads() of line " + line;
    case State::at_warp_barrier: return name + " waits at the warp barrier of line " + line;
    default: return name + " has ended";
    }
}

// Releases the block if all its threads wait at one barrier; otherwise nobody can go on, which is an error.
inline void release_block(unsigned n)
{
    unsigned waiting = 0;
    while (waiting < n && threads[waiting].state != State::at_block_barrier)
        ++waiting;
    if (waiting == n) {  // then those that have not ended wait for lanes that will never come
        waiting = 0;
        while (threads[waiting].state == State::done)
            ++waiting;
        error = block_name() + ": deadlock, " + whereabouts(waiting);
        return;
    }
    for (unsigned i = 0; i < n; ++i) {
        if (threads[i].state != State::at_block_barrier || threads[i].line != threads[waiting].line) {
            error = block_name() + ": barrier not reached by the whole block, " + whereabouts(waiting) + ", " + whereabouts(i);
            return;
        }
    }
    for (unsigned i = 0; i < n; ++i)
        threads[i].state = State::ready;
    ++block_phase;
}

inline void run_block()
{
    const unsigned n = threads_of_block();
    if (threads.size() < n)
        threads.resize(n);
    warp_phase.assign((n + WARP - 1) / WARP, 0);
    first_phase_of_block = ++block_phase;
    for (unsigned i = 0; i < n; ++i) {
        Thread& thread = threads[i];
        thread.state = State::ready;
        thread.index = {i % block_dim.x, i / block_dim.x % block_dim.y, i / (block_dim.x * block_dim.y)};
        getcontext(&thread.context);
        thread.context.uc_stack = {thread.stack.get(), 0, STACK_BYTES};
        thread.context.uc_link = nullptr;
        makecontext(&thread.context, thread_main, 0);
    }
    while (error.empty()) {
        unsigned done = 0;
        for (current = 0; current < n && error.empty(); ++current) {
            if (threads[current].state == State::ready) {
                thread_index = threads[current].index;
                swapcontext(&scheduler, &threads[current].context);
            }
            done += threads[current].state == State::done;
        }
        if (done == n)
            return;
        if (error.empty() && !release_warps(n))
            release_block(n);
    }
}

// ---------------------------------------------------------------------------------------------- memory
// A kernel argument: a pointer that knows its length.
template <class T>
class Global {
public:
    Global(const char* name, void* data, size_t bytes) : name_(name), data_(static_cast<T*>(data)), count_(bytes / sizeof(T)) {}
    template <class I>
    T& operator[](I index) const
    {
        const long long position = offset_ + static_cast<long long>(index);
        if (position < 0 || position >= static_cast<long long>(count_))
            fail("%s[%lld] is outside its %zu elements", name_, position, count_);
        return data_[position];
    }
    T& operator*() const { return (*this)[0]; }
    T* operator->() const { return &(*this)[0]; }
    Global operator+(long long distance) const
    {
        Global moved = *this;
        moved.offset_ += distance;
        return moved;
    }
    operator T*() const { return data_ + offset_; }

private:
    const char* name_;
    T* data_;
    size_t count_;
    long long offset_ = 0;
};

enum class Access { read, write, atomic };

// The last accesses to one element of shared memory.
struct Shadow {
    struct Entry {
        uint64_t block_phase = 0, warp_phase = 0;
        unsigned thread = 0;
    };
    Entry write, atomic, read, other_read;  // other_read: by another thread than `read`
    bool written_in(uint64_t first_phase) const
    {
        return write.block_phase >= first_phase || atomic.block_phase >= first_phase;
    }
};

// Whether an earlier access is not ordered before one of the current thread.
inline bool concurrent(const Shadow::Entry& earlier)
{
    if (earlier.block_phase != block_phase || earlier.thread == current)
        return false;
    const bool same_warp = earlier.thread / WARP == current / WARP;
    return !same_warp || earlier.warp_phase == warp_phase[current / WARP];
}

template <class T>
class SharedElement;

// An array in shared memory.
template <class T>
class Shared {
public:
    Shared(const char* name, size_t count) : name_(name), values_(count), shadows_(count) {}
    template <class I>
    SharedElement<T> operator[](I index)
    {
        const long long position = static_cast<long long>(index);
        if (position < 0 || position >= static_cast<long long>(values_.size()))
            fail("shared %s[%lld] is outside its %zu elements", name_, position, values_.size());
        return {*this, static_cast<size_t>(position)};
    }
    T& at(size_t position, Access access)
    {
        Shadow& shadow = shadows_[position];
        const char* verb = access == Access::read ? "reads" : access == Access::write ? "writes" : "updates";
        const auto race = [&](const Shadow::Entry& earlier, const char* did) {
            if (concurrent(earlier))
                fail("race: %s shared %s[%zu], which thread %u %s with no barrier between", verb, name_, position,
                     earlier.thread, did);
        };
        race(shadow.write, "wrote");
        if (access != Access::atomic)
            race(shadow.atomic, "updated");
        if (access != Access::read) {
            race(shadow.read, "read");
            race(shadow.other_read, "read");
        }
        if (access != Access::write && !shadow.written_in(first_phase_of_block))
            fail("%s shared %s[%zu] before anything was written to it", verb, name_, position);
        const Shadow::Entry now{block_phase, warp_phase[current / WARP], current};
        if (access == Access::read && shadow.read.thread != current)
            shadow.other_read = shadow.read;
        (access == Access::read ? shadow.read : access == Access::write ? shadow.write : shadow.atomic) = now;
        return values_[position];
    }

private:
    const char* name_;
    std::vector<T> values_;
    std::vector<Shadow> shadows_;
};

// `&element`: what an atomic function is given.
template <class T>
struct SharedPointer {
    Shared<T>& array;
    size_t position;
};

template <class T>
class SharedElement {
public:
    SharedElement(Shared<T>& array, size_t position) : array_(array), position_(position) {}
    operator T() const { return array_.at(position_, Access::read); }
    T operator=(T value) const { return array_.at(position_, Access::write) = value; }
    T operator=(const SharedElement& other) const { return *this = T(other); }
    T operator+=(T value) const { return *this = T(*this) + value; }
    T operator-=(T value) const { return *this = T(*this) - value; }
    SharedPointer<T> operator&() const { return {array_, position_}; }

private:
    Shared<T>& array_;
    size_t position_;
};

inline size_t dynamic_bytes;

// One array for all threads of all blocks of a launch; it begins each block uninitialised.
template <class T>
Shared<T>& dynamic_shared(const char* name)
{
    static Shared<T> array(name, 0);
    static uint64_t made_for_block = 0;
    if (made_for_block != first_phase_of_block) {
        array = Shared<T>(name, dynamic_bytes / sizeof(T));
        made_for_block = first_phase_of_block;
    }
    return array;
}

// ---------------------------------------------------------------------------------------------- launch
// One argument of a launch: where it is, and how many bytes the caller meant.
struct Argument {
    void* data;
    size_t bytes;
};

template <class T>
T scalar(const char* name, const Argument& argument)
{
    T value{};
    if (argument.bytes != sizeof(T))
        error = std::string("argument ") + name + " has " + std::to_string(sizeof(T)) + " bytes, got " +
                std::to_string(argument.bytes);
    else
        memcpy(&value, argument.data, sizeof(T));
    return value;
}

// Runs the grid; nullptr, or what went wrong.
inline const char* launch(const unsigned* grid, const unsigned* block, size_t shared_bytes, std::function<void()> kernel)
{
    grid_dim = {grid[0], grid[1], grid[2]};
    block_dim = {block[0], block[1], block[2]};
    dynamic_bytes = shared_bytes;
    body = std::move(kernel);
    for (unsigned z = 0; z < grid[2]; ++z)
        for (unsigned y = 0; y < grid[1]; ++y)
            for (unsigned x = 0; x < grid[0] && error.empty(); ++x) {
                block_index = {x, y, z};
                run_block();
            }
    return error.empty() ? nullptr : error.c_str();
}

template <class T>
uint64_t to_bits(T value)
{
    static_assert(sizeof(T) <= 8);
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof(T));
    return bits;
}

// The value that lane `source` of the warp offers. Every lane of the mask must come.
template <class T>
T shuffle(int line, unsigned mask, T value, unsigned source)
{
    threads[current].exchange = to_bits(value);
    sync_warp(line, mask);
    const unsigned other = current / WARP * WARP + source;
    if (!(mask >> source & 1) || other >= threads_of_block())
        fail("line %d: shuffle from lane %u, which does not take part (mask %#x)", line, source, mask);
    T result;
    memcpy(&result, &threads[other].exchange, sizeof(T));
    sync_warp(line, mask);  // nobody offers a new value before all have read this one
    return result;
}

template <class T>
T shuffle_down(int line, unsigned mask, T value, unsigned distance)
{
    const unsigned lane = current % WARP;
    return shuffle(line, mask, value, lane + distance < WARP ? lane + distance : lane);
}

inline unsigned ballot(int line, unsigned mask, bool predicate)
{
    threads[current].exchange = predicate;
    sync_warp(line, mask);
    unsigned result = 0;
    const unsigned begin = current / WARP * WARP;
    for (unsigned lane = 0; lane < WARP && begin + lane < threads_of_block(); ++lane)
        if (mask >> lane & 1)
            result |= static_cast<unsigned>(threads[begin + lane].exchange) << lane;
    sync_warp(line, mask);
    return result;
}

// What an atomic function works on: `&global[i]` is a plain pointer, `&shared[i]` a SharedPointer.
template <class P>
struct Target;
template <class T>
struct Target<T*> {
    using Value = T;
    static T& at(T* address) { return *address; }
};
template <class T>
struct Target<SharedPointer<T>> {
    using Value = T;
    static T& at(const SharedPointer<T>& address) { return address.array.at(address.position, Access::atomic); }
};
template <class P>
using Value = typename Target<P>::Value;

template <class P, class F>
Value<P> atomic(P address, F&& change)
{
    using T = Value<P>;
    static_assert(std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, unsigned long long> ||
                      std::is_same_v<T, float> || std::is_same_v<T, double>,
                  "CUDA has atomic functions for int, unsigned, unsigned long long, float and double");
    T& value = Target<P>::at(address);
    const T old = value;
    value = change(old);
    return old;
}

}  // namespace simt
