package registry

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/google/uuid"

	"github.com/jeffersonwarrior/modelscan/catalog"
	"github.com/jeffersonwarrior/modelscan/ent"
	"github.com/jeffersonwarrior/modelscan/ent/model"
	"github.com/jeffersonwarrior/modelscan/ent/modelfamily"
	"github.com/jeffersonwarrior/modelscan/ent/price"
	"github.com/jeffersonwarrior/modelscan/ent/provider"
	"github.com/jeffersonwarrior/modelscan/internal/fault"
	"github.com/jeffersonwarrior/modelscan/internal/rule"
)

// ImportProgress is called with the number of models that are done, and of all models. It runs in the importing
// goroutine while the database is locked for writing, and should return at once.
type ImportProgress func(done, total int)

// ImportResult says what an import did.
type ImportResult struct {
	Source    string
	Providers ImportChanges
	Families  ImportChanges
	Models    ImportChanges
	Prices    ImportChanges  // standard prices; a new price of an existing model counts as an update
	Notes     []catalog.Note // what the catalogue lacks, and what was repaired in it
}

// ImportChanges counts rows by what happened to them.
type ImportChanges struct {
	Created   int
	Updated   int
	Unchanged int
	Skipped   int // left alone, because they were deleted or set by hand
}

// ImportCatalog creates the providers, families and models of a catalogue that are missing, and updates those that
// differ. A price that differs ends now, and the new one begins. Importing the same catalogue again changes nothing.
//
// It leaves alone:
//
//   - what the catalogue does not know, and models that it does not list
//   - descriptions
//   - known prices from another source, such as those set by hand
//   - deleted providers and models
//
// It works in pieces of whole providers with some hundred models, and others write in between. Each piece is a
// transaction with its audit entries. After an error, the result says what was done, and that stays; import the
// catalogue again to do the rest. Within [Registry.InTx] everything is done or nothing, while others wait: about 0.6 ms
// for each model that differs.
//
// Progress may be nil. ImportCatalog returns [ErrInvalidData], which names the faults, if the catalogue breaks a rule
// of [ProviderInput] or [ModelInput].
func (r *Registry) ImportCatalog(
	ctx context.Context, snapshot catalog.Snapshot, progress ImportProgress,
) (ImportResult, error) {
	op := fmt.Sprintf("import catalogue %q", snapshot.Source)
	if err := snapshotFaults(snapshot).Err(); err != nil {
		return ImportResult{}, translate(ctx, op, err)
	}
	if progress == nil {
		progress = func(int, int) {}
	}
	most := r.pieceRows / importWeight
	if r.inTx { // an error undoes all of it
		most = math.MaxInt
	}
	progress(0, snapshot.Models())
	im := importer{snapshot: snapshot, report: ImportResult{Source: snapshot.Source, Notes: snapshot.Notes}}
	err := r.pieces(ctx, op, func() (more bool, err error) {
		before := im
		err = r.writeAlone(ctx, op, nil, func(tx *ent.Client) error {
			im = before // forget an attempt that was rolled back
			im.tx = tx
			return im.piece(ctx, most, progress)
		})
		if err != nil {
			im = before
		}
		return im.at < len(snapshot.Providers), err
	})
	return im.report, err
}

// importWeight says how many events take as long as importing one model.
const importWeight = 20

// maxFaults is the most faults of a catalogue that an error names.
const maxFaults = 20

func snapshotFaults(s catalog.Snapshot) fault.List {
	var f fault.List
	f.Text("source", s.Source, 1, rule.MaxName)
	names := map[string]bool{}
	for _, p := range s.Providers {
		f.In(fmt.Sprintf("provider %.40q: ", p.Name), judge(draft.Provider.Create(), providerInput(p)))
		f.Check(!names[p.Name], "provider %.40q is listed twice", p.Name)
		names[p.Name] = true
		models, families := map[string]bool{}, map[string]bool{}
		for i := range p.Models {
			m := &p.Models[i]
			var in ModelInput
			copyFields(&in, m)
			faults := in.withDefaults().faults()
			faults.Check(!models[m.ModelID], "listed twice")
			models[m.ModelID] = true
			if m.Family != "" && !families[m.Family] {
				families[m.Family] = true
				faults = append(faults, judge(draft.ModelFamily.Create(), FamilyInput{Name: m.Family})...)
			}
			if len(faults) > 0 {
				f.In(fmt.Sprintf("model %.40q of %.40q: ", m.ModelID, p.Name), faults)
			}
		}
		if len(f) > maxFaults {
			return append(f[:maxFaults], "and more")
		}
	}
	return f
}

func providerInput(p catalog.Provider) ProviderInput {
	return ProviderInput{
		Name: p.Name, DisplayName: p.DisplayName, BaseURL: p.BaseURL,
		AuthMethod: provider.AuthMethod(p.AuthMethod),
	}.withDefaults()
}

// importer is the state of one import.
type importer struct {
	snapshot catalog.Snapshot
	at       int // number of providers that are done
	done     int // number of models that are done
	report   ImportResult
	tx       *ent.Client // of the piece that is under way
}

// piece imports providers with about most models, but at least one provider.
func (im *importer) piece(ctx context.Context, most int, progress ImportProgress) error {
	for n := 0; n < most && im.at < len(im.snapshot.Providers); im.at++ {
		p := im.snapshot.Providers[im.at]
		if err := im.provider(ctx, p); err != nil {
			return fmt.Errorf("provider %q: %w", p.Name, err)
		}
		n += 1 + len(p.Models)
		im.done += len(p.Models)
		progress(im.done, im.snapshot.Models())
	}
	return nil
}

func (im *importer) provider(ctx context.Context, p catalog.Provider) error {
	live, err := im.tx.Provider.Query().Where(provider.Name(p.Name), provider.DeletedAtIsNil()).Only(ctx)
	switch in := providerInput(p); {
	case ent.IsNotFound(err):
		deleted, err := im.tx.Provider.Query().Where(provider.Name(p.Name)).Exist(ctx)
		if err != nil {
			return err
		}
		if deleted {
			im.report.Providers.Skipped++
			im.report.Models.Skipped += len(p.Models)
			return nil
		}
		if live, err = save(ctx, im.tx, ActionCreate, nil, filled(im.tx.Provider.Create(), in)); err != nil {
			return err
		}
		im.report.Providers.Created++
	case err != nil:
		return err
	default:
		if err := im.updateProvider(ctx, live, in); err != nil {
			return err
		}
	}
	families, err := im.families(ctx, live.ID, p.Models)
	if err != nil {
		return err
	}
	return im.models(ctx, live.ID, families, p.Models)
}

func (im *importer) updateProvider(ctx context.Context, live *ent.Provider, in ProviderInput) error {
	var up ProviderUpdate
	copyFields(&up, in) // without what the catalogue does not know
	if !differs(live, &up) {
		im.report.Providers.Unchanged++
		return nil
	}
	im.report.Providers.Updated++
	_, err := save(ctx, im.tx, ActionUpdate, live, filled(live.Update(), up))
	return err
}

// families creates the families that models need, and returns the provider's families by name.
func (im *importer) families(
	ctx context.Context, providerID uuid.UUID, models []catalog.Model,
) (map[string]uuid.UUID, error) {
	stored, err := im.tx.ModelFamily.Query().Where(modelfamily.ProviderID(providerID)).All(ctx)
	if err != nil {
		return nil, err
	}
	ids := make(map[string]uuid.UUID, len(stored))
	for _, family := range stored {
		ids[family.Name] = family.ID
	}
	wanted := map[string]bool{}
	var rows []*ent.ModelFamilyCreate
	for _, m := range models {
		if m.Family == "" || wanted[m.Family] {
			continue
		}
		wanted[m.Family] = true
		if _, ok := ids[m.Family]; ok {
			im.report.Families.Unchanged++
			continue
		}
		rows = append(rows, im.tx.ModelFamily.Create().SetProviderID(providerID).SetName(m.Family))
	}
	created, err := im.tx.ModelFamily.CreateBulk(rows...).Save(ctx)
	if err != nil {
		return nil, err
	}
	for _, family := range created {
		ids[family.Name] = family.ID
		noteRow(im.tx, ActionCreate, nil, family)
	}
	im.report.Families.Created += len(created)
	return ids, nil
}

func (im *importer) models(
	ctx context.Context, providerID uuid.UUID, families map[string]uuid.UUID, models []catalog.Model,
) error {
	stored, err := im.tx.Model.Query().Where(model.ProviderID(providerID)).All(ctx)
	if err != nil {
		return err
	}
	live, deleted := map[string]*ent.Model{}, map[string]bool{}
	for _, m := range stored {
		if m.DeletedAt == nil {
			live[m.ModelID] = m
		} else {
			deleted[m.ModelID] = true
		}
	}
	prices, err := im.prices(ctx, live)
	if err != nil {
		return err
	}
	var fresh []ModelInput
	for i := range models {
		m := &models[i]
		switch old := live[m.ModelID]; {
		case old != nil:
			if err := im.updateModel(ctx, old, families, m); err != nil {
				return err
			}
			if err := im.updatePrice(ctx, old.ID, prices[old.ID], m); err != nil {
				return err
			}
		case deleted[m.ModelID]:
			im.report.Models.Skipped++
		default:
			in := ModelInput{ProviderID: providerID, FamilyID: families[m.Family], PriceSource: im.snapshot.Source}
			copyFields(&in, m)
			fresh = append(fresh, in.withDefaults())
		}
	}
	created, err := insertModels(ctx, im.tx, fresh)
	im.report.Models.Created += len(created)
	im.report.Prices.Created += len(created)
	return err
}

// prices returns the current standard prices of models, by the model's id. It asks for ids: SQLite would search all
// prices for those of a provider.
func (im *importer) prices(ctx context.Context, models map[string]*ent.Model) (map[uuid.UUID]*ent.Price, error) {
	ids := make([]uuid.UUID, 0, len(models))
	for _, m := range models {
		ids = append(ids, m.ID)
	}
	byModel := make(map[uuid.UUID]*ent.Price, len(models))
	for some := range slices.Chunk(ids, chunk) {
		current, err := im.tx.Price.Query().Where(
			price.ModelIDIn(some...), price.ServiceTier(StandardTier), price.MinContextTokens(0),
			price.SupersededAtIsNil(), price.EffectiveToIsNil(),
		).All(ctx)
		if err != nil {
			return nil, err
		}
		for _, p := range current {
			byModel[p.ModelID] = p
		}
	}
	return byModel, nil
}

func (im *importer) updateModel(
	ctx context.Context, old *ent.Model, families map[string]uuid.UUID, m *catalog.Model,
) error {
	var up ModelUpdate
	copyFields(&up, m)
	if id, ok := families[m.Family]; ok && m.Family != "" {
		up.FamilyID = &id
	}
	if !differs(old, &up) {
		im.report.Models.Unchanged++
		return nil
	}
	im.report.Models.Updated++
	_, err := save(ctx, im.tx, ActionUpdate, old, filled(old.Update(), up))
	return err
}

func (im *importer) updatePrice(ctx context.Context, modelID uuid.UUID, current *ent.Price, m *catalog.Model) error {
	switch {
	case m.Rates == nil || current != nil && maps.Equal(RatesOf(current), m.Rates):
		im.report.Prices.Unchanged++
		return nil
	case current != nil && current.Source != im.snapshot.Source && len(RatesOf(current)) > 0:
		im.report.Prices.Skipped++
		return nil
	}
	im.report.Prices.Updated++
	in := PriceInput{Rates: m.Rates, Source: im.snapshot.Source}.withDefaults()
	_, err := changePrice(ctx, im.tx, modelID, in)
	return err
}
