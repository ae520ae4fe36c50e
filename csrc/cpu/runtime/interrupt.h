// Leaving a call early, as Ctrl-C asks: one call may take minutes, and Python looks at signals between calls only.
#pragma once

#include <atomic>
#include <chrono>
#include <exception>
#include <thread>

namespace geodiff {

struct Interrupted : std::exception {
    const char* what() const noexcept override { return "interrupted"; }
};

// The call that a thread works for. `parallel` hands it on to its threads; loops over tiles and items ask it whether to
// go on, by interruption_point().
class Call {
  public:
    // stop() is asked on this thread, at most every 50 ms. Once it says yes, every thread of the call throws
    // Interrupted.
    explicit Call(bool (*stop)()) : stop_(stop), asked_(Clock::now()), before_(current()) { current() = this; }
    ~Call() { current() = before_; }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

    // The one that this thread works for; null: none that can be stopped.
    static Call*& current() {
        static thread_local Call* call = nullptr;
        return call;
    }

    void check() {
        if (!stopped_.load(std::memory_order_relaxed)) {
            if (std::this_thread::get_id() != owner_) return;
            const Clock::time_point now = Clock::now();
            if (now - asked_ < std::chrono::milliseconds(50)) return;
            asked_ = now;
            if (!stop_()) return;
            stopped_ = true;
        }
        throw Interrupted();
    }

    // This thread works for `call` as long as the object lives.
    class Helper {
      public:
        explicit Helper(Call* call) : before_(current()) { current() = call; }
        ~Helper() { current() = before_; }
        Helper(const Helper&) = delete;
        Helper& operator=(const Helper&) = delete;

      private:
        Call* const before_;
    };

  private:
    using Clock = std::chrono::steady_clock;
    bool (*const stop_)();
    const std::thread::id owner_ = std::this_thread::get_id();
    Clock::time_point asked_;  // the owner's alone
    std::atomic<bool> stopped_{false};
    Call* const before_;
};

// Throws Interrupted if the call that this thread works for is to stop: asked between pieces of work of milliseconds.
inline void interruption_point() {
    if (Call* const call = Call::current()) call->check();
}

}  // namespace geodiff
