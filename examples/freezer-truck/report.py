"""The end of the day: what each truck did, and whether all of it is in order."""


def report(trucks, dispatcher, lost, colder, away):
    """Prints the table; gives 0 when everything is as it should be, 1 otherwise."""
    print(f"\n{'truck':<10}{'readings':>9}{'lost':>6}{'door':>6}{'°C from':>9}{'to':>7}{'volt':>12}{'set to':>8}{'after':>8}")
    faults = []
    for truck in trucks:
        faults += row(truck, dispatcher, away if truck is lost else colder)
    seen = dispatcher.statuses[lost.name]
    if "offline" not in seen:
        faults.append(f"{lost.name}: its last will was not seen, only {seen}")
    for truck in trucks:
        if truck is not lost and "offline" in dispatcher.statuses[truck.name]:
            faults.append(f"{truck.name}: a last will without reason")
    total = sum(len(readings) for readings in dispatcher.readings.values())
    print(f"\n{total} readings from {len(trucks)} trucks, {dispatcher.repeated} repeated")
    print(f"{lost.name}: {' → '.join(seen)}")
    for fault in faults:
        print(f"WRONG  {fault}")
    print("everything is in order" if not faults else f"{len(faults)} things are wrong")
    return 1 if faults else 0


def row(truck, dispatcher, wanted):
    """One line of the table, and what is wrong in it."""
    readings = dispatcher.readings[truck.name]
    missing = sorted(set(range(1, truck.sent + 1)) - set(readings))
    faults = [f"{truck.name}: readings {missing[:5]}… never arrived"] if missing else []
    requests = dispatcher.asked[truck.name]
    faults += [f"{truck.name}: {r['setpoint']:g} °C was not honoured" for r in requests if r["honoured"] is None]
    if truck.freezer.setpoint != wanted:
        faults.append(f"{truck.name}: is set to {truck.freezer.setpoint:g} °C, not {wanted:g} °C")
    times = [reading["time"] for _, reading in sorted(readings.items())]
    if times != sorted(times):
        faults.append(f"{truck.name}: its clock ran backwards")
    if not readings:
        return [*faults, f"{truck.name}: no reading at all"]
    temperatures = [reading["temperature"] for reading in readings.values()]
    volts = [reading["voltage"] for reading in readings.values()]
    after = [r["honoured"] - r["asked"] for r in requests[:1] if r["honoured"]]
    print(
        f"{truck.name:<10}{len(readings):>9}{len(missing):>6}{truck.freezer.openings:>6}"
        f"{min(temperatures):>9.1f}{max(temperatures):>7.1f}{f'{min(volts):.1f}–{max(volts):.1f}':>12}"
        f"{truck.freezer.setpoint:>8.1f}{f'{after[0] * 1000:.0f} ms' if after else '–':>8}"
    )
    return faults
